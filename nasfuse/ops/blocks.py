"""Blocks: the transform of a skip, from `inputs` channels to `outputs` channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.attention import SqueezeExcite, squeeze_excite_cost
from nasfuse.ops.layers import ConvNorm, conv_norm_cost


class Residual(nn.Module):
    """norm(conv(act(norm(conv(x))))), two k x k convolutions, the first strided.

    The transform of ResNet's basic block. He et al. 2016, arXiv:1512.03385
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        kernel: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel=kernel, stride=stride)
        self.activation = activation()
        self.conv2 = ConvNorm(outputs, outputs, kernel=kernel)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.activation(self.conv1(x)))
        return out


def residual_cost(shape: Shape, outputs: int, stride: int, *, kernel: int) -> Cost:
    first = conv_norm_cost(shape, outputs, kernel=kernel, stride=stride)
    return first + conv_norm_cost(
        shape.strided(outputs, stride), outputs, kernel=kernel
    )


class MBConv(nn.Module):
    """norm(W2 se(act(norm(dw(act(norm(W1 x))))))): an inverted bottleneck.

    W1 widens `expand` times (absent for 1), dw is a k x k convolution within each
    channel, se squeezes to inputs / se channels (absent for None), W2 is linear.
    Sandler et al. 2018, MobileNetV2, arXiv:1801.04381; with se, Tan & Le 2019,
    EfficientNet, arXiv:1905.11946
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        kernel: int,
        expand: int,
        se: int | None,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        hidden = expand * inputs
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [ConvNorm(inputs, hidden, kernel=1), activation()]
        layers += [
            ConvNorm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        ]
        layers += [activation()]
        if se is not None:
            squeezed = max(1, inputs // se)
            layers += [SqueezeExcite(hidden, squeezed=squeezed, activation=activation)]
        self.layers = nn.Sequential(*layers, ConvNorm(hidden, outputs, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def mbconv_cost(
    shape: Shape,
    outputs: int,
    stride: int,
    *,
    kernel: int,
    expand: int,
    se: int | None = None,
) -> Cost:
    hidden = shape._replace(channels=expand * shape.channels)
    widen = conv_norm_cost(shape, hidden.channels, kernel=1) if expand > 1 else NOTHING
    depthwise = conv_norm_cost(
        hidden, hidden.channels, kernel=kernel, stride=stride, groups=hidden.channels
    )
    inner = hidden.strided(hidden.channels, stride)
    attend = squeeze_excite_cost(inner, max(1, shape.channels // se)) if se else NOTHING
    return widen + depthwise + attend + conv_norm_cost(inner, outputs, kernel=1)


class Dense(nn.Module):
    """conv(act(norm(W act(norm(x))))), W 1 x 1 to bottleneck * outputs channels.

    Normalised before each convolution, so what it puts out is not. The layer of
    DenseNet-B. Huang et al. 2017, arXiv:1608.06993
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        kernel: int,
        bottleneck: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        hidden = bottleneck * outputs
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(
            hidden, outputs, kernel, stride, padding=kernel // 2, bias=False
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.activation(self.norm1(x)))
        out: Tensor = self.conv2(self.activation(self.norm2(x)))
        return out


def dense_cost(
    shape: Shape, outputs: int, stride: int, *, kernel: int, bottleneck: int
) -> Cost:
    hidden = shape._replace(channels=bottleneck * outputs)
    reduce = norm_cost(shape) + conv_cost(shape, hidden.channels, 1)
    return (
        reduce + norm_cost(hidden) + conv_cost(hidden, outputs, kernel, stride=stride)
    )


class Block(NamedTuple):
    """A transform, its cost on a map, and whether an activation follows its fusion."""

    module: type[nn.Module]
    cost: Callable[..., Cost]
    activated: bool


BLOCKS = {
    "residual": Block(Residual, residual_cost, activated=True),
    "mbconv": Block(MBConv, mbconv_cost, activated=False),
    "dense": Block(Dense, dense_cost, activated=False),
}
