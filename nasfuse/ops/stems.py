"""Stems: the first layer, from the image's channels."""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.ops.layers import ConvNorm


class Stem(nn.Module):
    """activation(norm(conv(x))): the first layer, from the image's channels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        activation: type[nn.Module],
        conv: type[nn.Module] = ConvNorm,
    ) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel=kernel, stride=stride)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x))


class BareStem(nn.Module):
    """conv(x), for blocks that normalise and activate first."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
