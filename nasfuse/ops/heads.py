"""Heads: from the last map, or those of all levels, to one number a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, linear_cost, norm_cost
from nasfuse.ops.layers import ConvNorm, Mean, conv_norm_cost


class MeanHead(nn.Module):
    """linear(mean(x)), mean over the map, as ResNet.

    (batch, inputs, height, width) to (batch, classes), as all heads of one map.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.mean = Mean()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.mean(x).flatten(1))


def mean_head_cost(shape: Shape, classes: int) -> Cost:
    return linear_cost(shape.channels, classes)


class NormHead(nn.Module):
    """linear(mean(act(norm(x)))), for a last map that is not normalised."""

    def __init__(
        self, inputs: int, classes: int, *, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.mean = Mean()
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = activation()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(x))
        return self.linear(self.mean(x).flatten(1))


def norm_head_cost(shape: Shape, classes: int) -> Cost:
    return norm_cost(shape) + linear_cost(shape.channels, classes)


class ConvHead(nn.Module):
    """linear(mean(act(norm(W x)))), W 1 x 1 to `width` channels, as EfficientNet."""

    def __init__(
        self, inputs: int, classes: int, *, width: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.mean = Mean()
        self.conv = ConvNorm(inputs, width, kernel=1)
        self.activation = activation()
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv(x))
        return self.linear(self.mean(x).flatten(1))


def conv_head_cost(shape: Shape, classes: int, *, width: int) -> Cost:
    return conv_norm_cost(shape, width, kernel=1) + linear_cost(width, classes)


class LevelsHead(nn.Module):
    """linear([mean(x1); mean(x2); ...]), the means of all levels of a pyramid.

    Maps of `channels` channels each to (batch, classes).
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.mean = Mean()
        self.linear = nn.Linear(sum(channels), classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        means = torch.cat([self.mean(x) for x in maps], 1)
        return self.linear(means.flatten(1))


def levels_head_cost(channels: Sequence[int], classes: int) -> Cost:
    return linear_cost(sum(channels), classes)


class LateHead(nn.Module):
    """mean(linear1(mean(x1)), linear2(mean(x2)), ...): a prediction a level, averaged.

    Late fusion, as the detectors that predict at each level by itself (Liu et al. 2016,
    SSD, arXiv:1512.02325). Maps of `channels` channels each to (batch, classes).
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.mean = Mean()
        self.linears = nn.ModuleList(nn.Linear(inputs, classes) for inputs in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.linears, maps, strict=True)
        return torch.stack([f(self.mean(x).flatten(1)) for f, x in pairs]).mean(0)


def late_head_cost(channels: Sequence[int], classes: int) -> Cost:
    return sum((linear_cost(inputs, classes) for inputs in channels), NOTHING)


class Head(NamedTuple):
    """A head, what it costs, and whether it is told the network's activation."""

    module: type[nn.Module]
    cost: Callable[..., Cost]
    activated: bool


HEADS = {
    "mean": Head(MeanHead, mean_head_cost, activated=False),
    "norm": Head(NormHead, norm_head_cost, activated=True),
    "conv": Head(ConvHead, conv_head_cost, activated=True),
}
