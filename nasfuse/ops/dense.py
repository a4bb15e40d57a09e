"""DenseNet's layer."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import Cost, Shape
from nasfuse.ops.layers import NormConv, norm_conv_cost


class Dense(nn.Module):
    """conv(act(norm(W act(norm(x))))), W 1 x 1 to bottleneck * outputs channels.

    Normalised before each convolution, so what it puts out is not. Without `bottleneck`
    conv(act(norm(x))). The layers of DenseNet-B and DenseNet. Huang et al. 2017,
    arXiv:1608.06993
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        bottleneck: int | None = None,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        hidden = inputs if bottleneck is None else bottleneck * outputs
        self.conv1 = (
            nn.Identity()
            if bottleneck is None
            else NormConv(inputs, hidden, kernel=1, activation=activation)
        )
        self.conv2 = NormConv(
            hidden, outputs, kernel=kernel, stride=stride, activation=activation
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


def dense_cost(
    shape: Shape,
    outputs: int,
    stride: int,
    *,
    kernel: int,
    bottleneck: int | None = None,
) -> Cost:
    if bottleneck is None:
        return norm_conv_cost(shape, outputs, kernel=kernel, stride=stride)
    hidden = shape._replace(channels=bottleneck * outputs)
    reduce = norm_conv_cost(shape, hidden.channels, kernel=1)
    return reduce + norm_conv_cost(hidden, outputs, kernel=kernel, stride=stride)
