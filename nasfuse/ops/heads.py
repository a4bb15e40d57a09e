"""Heads: from the last map to one number a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, linear_cost, norm_cost
from nasfuse.ops.layers import ConvNorm, conv_norm_cost


class NormHead(nn.Module):
    """linear(mean(act(norm(x)))), for a last map that is not normalised.

    (batch, inputs, height, width) to (batch, classes), as all heads.
    """

    def __init__(
        self, inputs: int, classes: int, *, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = activation()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.activation(self.norm(x)).mean((2, 3)))
        return out


def norm_head_cost(shape: Shape, classes: int) -> Cost:
    return norm_cost(shape) + linear_cost(shape.channels, classes)


class ConvHead(nn.Module):
    """linear(mean(act(norm(W x)))), W 1 x 1 to `width` channels, as EfficientNet."""

    def __init__(
        self, inputs: int, classes: int, *, width: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, width, kernel=1)
        self.activation = activation()
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.activation(self.conv(x)).mean((2, 3)))
        return out


def conv_head_cost(shape: Shape, classes: int, *, width: int) -> Cost:
    return conv_norm_cost(shape, width, kernel=1) + linear_cost(width, classes)


class Head(NamedTuple):
    """A head and what it costs on the last map."""

    module: type[nn.Module]
    cost: Callable[..., Cost]


HEADS = {"norm": Head(NormHead, norm_head_cost), "conv": Head(ConvHead, conv_head_cost)}
