"""Inverted bottlenecks: wide inside, where each channel has its own convolution."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape
from nasfuse.ops.attention import SqueezeExcite, squeeze_excite_cost
from nasfuse.ops.layers import ConvNorm, conv_norm_cost


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
        stride: int = 1,
        kernel: int,
        expand: int,
        se: int | None = None,
        activation: type[nn.Module],
        conv: type[nn.Module] = ConvNorm,
    ) -> None:
        super().__init__()
        hidden = expand * inputs
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [ConvNorm(inputs, hidden, kernel=1), activation()]
        layers += [
            conv(hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
            activation(),
        ]
        if se is not None:
            squeezed = max(1, inputs // se)
            layers += [SqueezeExcite(hidden, squeezed=squeezed, activation=activation)]
        self.layers = nn.Sequential(*layers, ConvNorm(hidden, outputs, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


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


class FusedMBConv(nn.Module):
    """norm(W se(act(norm(conv(x))))): MBConv with one k x k convolution for W1 and dw.

    With `expand` 1 there is no W, and the k x k convolution is activated. Tan & Le
    2021, EfficientNetV2, arXiv:2104.00298
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        expand: int,
        se: int | None = None,
        activation: type[nn.Module],
        conv: type[nn.Module] = ConvNorm,
    ) -> None:
        super().__init__()
        hidden = expand * inputs if expand > 1 else outputs
        layers: list[nn.Module] = [
            conv(inputs, hidden, kernel=kernel, stride=stride),
            activation(),
        ]
        if se is not None:
            squeezed = max(1, inputs // se)
            layers += [SqueezeExcite(hidden, squeezed=squeezed, activation=activation)]
        if expand > 1:
            layers += [ConvNorm(hidden, outputs, kernel=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def fused_mbconv_cost(
    shape: Shape,
    outputs: int,
    stride: int,
    *,
    kernel: int,
    expand: int,
    se: int | None = None,
) -> Cost:
    hidden = expand * shape.channels if expand > 1 else outputs
    conv = conv_norm_cost(shape, hidden, kernel=kernel, stride=stride)
    inner = shape.strided(hidden, stride)
    attend = squeeze_excite_cost(inner, max(1, shape.channels // se)) if se else NOTHING
    shrink = conv_norm_cost(inner, outputs, kernel=1) if expand > 1 else NOTHING
    return conv + attend + shrink
