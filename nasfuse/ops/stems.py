"""Stems: the first layer, from the image's channels."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.ops.layers import ConvNorm, SameConvNorm


class Stem(nn.Module):
    """activation(norm(conv(x))): the first layer, from the image's channels.

    `same` pads as TensorFlow does.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        same: bool = False,
    ) -> None:
        super().__init__()
        conv = SameConvNorm if same else ConvNorm
        self.conv = conv(inputs, outputs, kernel=kernel, stride=stride)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.conv(x))
        return out


class BareStem(nn.Module):
    """conv(x), for blocks that normalise and activate first."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out
