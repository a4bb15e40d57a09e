"""Blocks of two convolutions: ResNet's basic block, normalised after or before them."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost
from nasfuse.ops.layers import ConvNorm, NormConv, conv_norm_cost, norm_conv_cost


class Residual(nn.Module):
    """norm(conv(act(norm(conv(x))))), two k x k convolutions, the first strided.

    The transform of ResNet's basic block. He et al. 2016, arXiv:1512.03385
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel=kernel, stride=stride)
        self.activation = activation()
        self.conv2 = ConvNorm(outputs, outputs, kernel=kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.activation(self.conv1(x)))


def residual_cost(shape: Shape, outputs: int, stride: int, *, kernel: int) -> Cost:
    first = conv_norm_cost(shape, outputs, kernel=kernel, stride=stride)
    return first + conv_norm_cost(
        shape.strided(outputs, stride), outputs, kernel=kernel
    )


class Preact(nn.Module):
    """conv(act(norm(conv(x)))), two k x k convolutions, x normalised before.

    The transform of the basic pre-activation block. He et al. 2016, arXiv:1603.05027
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
        )
        self.conv2 = NormConv(outputs, outputs, kernel=kernel, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


def preact_cost(shape: Shape, outputs: int, stride: int, *, kernel: int) -> Cost:
    inner = shape.strided(outputs, stride)
    first = conv_cost(shape, outputs, kernel, stride=stride)
    return first + norm_conv_cost(inner, outputs, kernel=kernel)
