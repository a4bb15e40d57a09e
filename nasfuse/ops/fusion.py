"""Fusion: two maps of one height and width become one map.

x is the skip's input (through its shortcut), y the block's transform of it. A gate on
the identity path starts close to the identity, which is part of the operator: left at
one half, it is the gate's start and not its merit that a search would rank (He et al.
2016, arXiv:1603.05027, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost


class Add(nn.Module):
    """x + y. He et al. 2016, Deep Residual Learning, arXiv:1512.03385

    x, y: (batch, width, height, width), as all fusions but Concat take them.
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Multiply(nn.Module):
    """x * (1 + tanh(y)): a product in which y = 0 leaves x as it is.

    The bare product x * y loses the identity path; this one keeps it.
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (1 + torch.tanh(y))


class Concat(nn.Module):
    """[x; y]: y's channels are appended, and the map grows.

    x: (batch, channels, height, width), y: (batch, growth, height, width).
    Huang et al. 2017, Densely Connected Convolutional Networks, arXiv:1608.06993
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x, y), 1)


class ConcatConv(nn.Module):
    """relu(norm(W [x; y])): concatenated, then 1 x 1 back to the width.

    As in the transitions of Wang et al. 2020, CSPNet, arXiv:1911.11929
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(torch.cat((x, y), 1))))
        return out


def concat_conv_cost(shape: Shape) -> Cost:
    both = shape._replace(channels=2 * shape.channels)
    return conv_cost(both, shape.channels, 1) + norm_cost(shape)


class Gated(nn.Module):
    """g * y + (1 - g) * x with g = sigmoid(W x + b), b = -3 and W = 0 at the start.

    The gate begins at 0.05, almost the identity. Srivastava et al. 2015, Highway
    Networks, arXiv:1505.00387; "exclusive gating" in He et al. 2016, arXiv:1603.05027.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate(x))
        return g * y + (1 - g) * x


def gated_cost(shape: Shape) -> Cost:
    return conv_cost(shape, shape.channels, 1, bias=True)


class Bottleneck(nn.Module):
    """norm(W2 relu(norm(W1 x))): 1 x 1 to width / reduction channels and back."""

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.reduce = nn.Conv2d(width, hidden, 1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(hidden, width, 1)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm2(
            self.expand(self.activation(self.norm1(self.reduce(x))))
        )
        return out


def bottleneck_cost(shape: Shape, reduction: int) -> Cost:
    hidden = shape._replace(channels=max(1, shape.channels // reduction))
    reduce = conv_cost(shape, hidden.channels, 1, bias=True) + norm_cost(hidden)
    return reduce + conv_cost(hidden, shape.channels, 1, bias=True) + norm_cost(shape)


class AFF(nn.Module):
    """g * x + (1 - g) * y with g = sigmoid(L(x + y) + G(mean(x + y))).

    L looks at each pixel, G at the whole map, each a Bottleneck. Its batch norm on the
    mean needs more than one image in training. Dai et al. 2021, Attentional Feature
    Fusion, arXiv:2009.14082 (equation 4; without the factor 2 of the authors' code)
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + y
        g = torch.sigmoid(
            self.local(total) + self.context(total.mean((2, 3), keepdim=True))
        )
        return g * x + (1 - g) * y


def aff_cost(shape: Shape, reduction: int) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    return bottleneck_cost(shape, reduction) + bottleneck_cost(pixel, reduction)


def free(shape: Shape) -> Cost:
    """Of a fusion without layers: element-wise work is not counted."""
    del shape
    return NOTHING


class Fusion(NamedTuple):
    """An operator, its cost on a map, and whether it is told the map's width."""

    module: type[nn.Module]
    cost: Callable[..., Cost]
    sized: bool


FUSIONS = {
    "add": Fusion(Add, free, sized=False),
    "multiply": Fusion(Multiply, free, sized=False),
    "concat": Fusion(Concat, free, sized=False),
    "concat_conv": Fusion(ConcatConv, concat_conv_cost, sized=True),
    "gated": Fusion(Gated, gated_cost, sized=True),
    "aff": Fusion(AFF, aff_cost, sized=True),
}
