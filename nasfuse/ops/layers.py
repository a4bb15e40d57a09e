"""The layers that blocks, fusions and heads are made of."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost, norm_cost

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "hard_swish": nn.Hardswish,
}


class Mean(nn.Module):
    """The mean over a map: (batch, channels, height, width) to (batch, channels, 1, 1).

    A module, so that training can take another way to the same gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


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
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def conv_norm_cost(
    shape: Shape, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> Cost:
    conv = conv_cost(shape, outputs, kernel, stride=stride, groups=groups)
    return conv + norm_cost(shape.strided(outputs, stride))


class SameConvNorm(nn.Module):
    """ConvNorm with TensorFlow's padding SAME: more after than before where strided."""

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
            inputs, outputs, kernel, stride, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        pad: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            missing = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            pad += [missing // 2, missing - missing // 2]
        return self.norm(self.conv(nn.functional.pad(x, pad)))


class NormConv(nn.Module):
    """conv(act(norm(x))): normalised before a padded k x k convolution without bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = activation()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.activation(self.norm(x)))


def norm_conv_cost(
    shape: Shape, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> Cost:
    conv = conv_cost(shape, outputs, kernel, stride=stride, groups=groups)
    return norm_cost(shape) + conv


class Halve(nn.Module):
    """Mean over 2 x 2 pixels, odd sides rounded up: a shortcut that keeps channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)
