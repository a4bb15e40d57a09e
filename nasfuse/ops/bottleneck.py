"""Bottlenecks: 1 x 1 to few channels, k x k there, and 1 x 1 back."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.attending import SelectiveKernel, selective_kernel_cost
from nasfuse.ops.attention import SqueezeExcite, squeeze_excite_cost
from nasfuse.ops.layers import ConvNorm, NormConv, conv_norm_cost, norm_conv_cost


class BottleneckBlock(nn.Module):
    """norm(W2 act(norm(conv(act(norm(W1 x)))))), conv k x k, strided and grouped.

    The transform of ResNet's bottleneck (He et al. 2016, arXiv:1512.03385, with the
    stride on the k x k convolution, version 1.5); with groups that of ResNeXt (Xie et
    al. 2017, arXiv:1611.05431).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        inner: int,
        groups: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, inner, kernel=1)
        self.activation = activation()
        self.conv2 = ConvNorm(inner, inner, kernel=kernel, stride=stride, groups=groups)
        self.conv3 = ConvNorm(inner, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv2(self.activation(self.conv1(x))))
        return self.conv3(x)


def bottleneck_cost(
    shape: Shape, outputs: int, stride: int, *, kernel: int, inner: int, groups: int
) -> Cost:
    narrow = shape._replace(channels=inner)
    reduce = conv_norm_cost(shape, inner, kernel=1)
    middle = conv_norm_cost(narrow, inner, kernel=kernel, stride=stride, groups=groups)
    return (
        reduce
        + middle
        + conv_norm_cost(narrow.strided(inner, stride), outputs, kernel=1)
    )


class PreactBottleneck(nn.Module):
    """W2 act(norm(conv(act(norm(W1 x))))), x normalised and activated before.

    The transform of the pre-activation bottleneck. He et al. 2016, arXiv:1603.05027
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        inner: int,
        groups: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.conv2 = NormConv(
            inner,
            inner,
            kernel=kernel,
            stride=stride,
            groups=groups,
            activation=activation,
        )
        self.conv3 = NormConv(inner, outputs, kernel=1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


def preact_bottleneck_cost(
    shape: Shape, outputs: int, stride: int, *, kernel: int, inner: int, groups: int
) -> Cost:
    narrow = shape._replace(channels=inner)
    middle = norm_conv_cost(narrow, inner, kernel=kernel, stride=stride, groups=groups)
    widen = norm_conv_cost(narrow.strided(inner, stride), outputs, kernel=1)
    return conv_cost(shape, inner, 1) + middle + widen


class DualPathBlock(nn.Module):
    """The pre-activation bottleneck with a norm and activation of its own before it.

    Its output is partly added and partly concatenated (fusion `dual_path`). Chen et al.
    2017, Dual Path Networks, arXiv:1707.01629
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        inner: int,
        groups: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = NormConv(inputs, inner, kernel=1, activation=activation)
        self.conv2 = NormConv(
            inner,
            inner,
            kernel=kernel,
            stride=stride,
            groups=groups,
            activation=activation,
        )
        self.conv3 = NormConv(inner, outputs, kernel=1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


def dual_path_block_cost(
    shape: Shape, outputs: int, stride: int, *, kernel: int, inner: int, groups: int
) -> Cost:
    rest = preact_bottleneck_cost(
        shape, outputs, stride, kernel=kernel, inner=inner, groups=groups
    )
    return norm_cost(shape) + rest


class SelectiveConv(nn.Module):
    """Two k x k convolutions, one with dilation 2, weighed by selective kernels.

    x: (batch, channels, height, width). Li et al. 2019, SKNet, arXiv:1903.06586
    """

    def __init__(
        self,
        width: int,
        *,
        stride: int = 1,
        kernel: int,
        groups: int,
        reduction: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.near = ConvNorm(width, width, kernel=kernel, stride=stride, groups=groups)
        self.far = ConvNorm(
            width, width, kernel=kernel, stride=stride, groups=groups, dilation=2
        )
        self.activation = activation()
        self.fusion = SelectiveKernel(width, reduction=reduction)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.activation(self.near(x)), self.activation(self.far(x))
        return self.fusion(near, far)


class SelectiveBottleneck(nn.Module):
    """norm(W2 sk(act(norm(W1 x)))): a bottleneck with SelectiveConv in the middle.

    The transform of SKNet. Li et al. 2019, arXiv:1903.06586
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        inner: int,
        groups: int,
        reduction: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, inner, kernel=1)
        self.activation = activation()
        self.conv2 = SelectiveConv(
            inner,
            stride=stride,
            kernel=kernel,
            groups=groups,
            reduction=reduction,
            activation=activation,
        )
        self.conv3 = ConvNorm(inner, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.activation(self.conv1(x))))


def selective_bottleneck_cost(
    shape: Shape,
    outputs: int,
    stride: int,
    *,
    kernel: int,
    inner: int,
    groups: int,
    reduction: int,
) -> Cost:
    single = bottleneck_cost(
        shape, outputs, stride, kernel=kernel, inner=inner, groups=groups
    )
    narrow = shape._replace(channels=inner)
    second = conv_norm_cost(narrow, inner, kernel=kernel, stride=stride, groups=groups)
    return (
        single
        + second
        + selective_kernel_cost(narrow.strided(inner, stride), reduction)
    )


class RegNetBlock(nn.Module):
    """norm(W2 se(act(norm(conv(act(norm(W1 x))))))), conv k x k, strided and grouped.

    se squeezes to inputs / se channels (RegNetY), absent for None (RegNetX).
    Radosavovic et al. 2020, Designing Network Design Spaces, arXiv:2003.13678
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        kernel: int,
        inner: int,
        groups: int,
        se: int | None = None,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            ConvNorm(inputs, inner, kernel=1),
            activation(),
            ConvNorm(inner, inner, kernel=kernel, stride=stride, groups=groups),
            activation(),
        ]
        if se is not None:
            # squeezes with ReLU in every RegNet, whatever the network's activation
            squeezed = max(1, inputs // se)
            layers += [SqueezeExcite(inner, squeezed=squeezed, activation=nn.ReLU)]
        self.layers = nn.Sequential(*layers, ConvNorm(inner, outputs, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def regnet_cost(
    shape: Shape,
    outputs: int,
    stride: int,
    *,
    kernel: int,
    inner: int,
    groups: int,
    se: int | None = None,
) -> Cost:
    plain = bottleneck_cost(
        shape, outputs, stride, kernel=kernel, inner=inner, groups=groups
    )
    if se is None:
        return plain
    met = shape.strided(inner, stride)
    return plain + squeeze_excite_cost(met, max(1, shape.channels // se))
