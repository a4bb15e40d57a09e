"""The layers that blocks, fusions and heads are made of."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost, pool_cost

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


class ConvNorm(nn.Module):
    """norm(conv(x)): a padded k x k convolution without bias, then batch norm.

    (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


def conv_norm_cost(
    shape: Shape, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> Cost:
    conv = conv_cost(shape, outputs, kernel, stride=stride, groups=groups)
    return conv + norm_cost(shape.strided(outputs, stride))


class Stem(nn.Module):
    """activation(norm(conv(x))): the first layer, from the image's channels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, outputs, kernel=kernel, stride=stride)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.conv(x))
        return out


class Skip(nn.Module):
    """activation(fusion(shortcut(x), transform(x))): input meets transform.

    With Add it is a residual block (He et al. 2016, arXiv:1512.03385), with Concat a
    layer of a DenseNet (Huang et al. 2017, arXiv:1608.06993).
    """

    def __init__(
        self,
        *,
        transform: nn.Module,
        shortcut: nn.Module,
        fusion: nn.Module,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.shortcut = shortcut
        self.fusion = fusion
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.fusion(self.shortcut(x), self.transform(x)))
        return out


class Halve(nn.Module):
    """Mean over 2 x 2 pixels, odd sides rounded up: a shortcut that keeps channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x)
        return out


def shortcut_cost(shape: Shape, outputs: int, stride: int) -> Cost:
    """Of the cheapest path to a map of this size: nothing, pooling or projection."""
    if outputs != shape.channels:
        return conv_norm_cost(shape, outputs, kernel=1, stride=stride)
    return NOTHING if stride == 1 else pool_cost(shape, stride)
