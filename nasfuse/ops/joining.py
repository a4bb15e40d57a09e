"""Fusion without attention: two maps of one height and width become one map.

x is the skip's input (through its shortcut), y the block's transform of it. A gate on
the identity path starts close to the identity, which is part of the operator: left at
one half, it is the gate's start and not its merit that a search would rank (He et al.
2016, arXiv:1603.05027, section 3).
"""

from __future__ import annotations

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


class Max(nn.Module):
    """max(x, y) in each element; where they are equal each gets half the gradient.

    Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.maximum(x, y)


class Modulus(nn.Module):
    """sqrt(x^2 + y^2 + 1e-6), the modulus of x + iy.

    The small number keeps the gradient finite at 0. Yang et al. 2003, Feature fusion:
    parallel strategy vs. serial strategy, Pattern Recognition 36(6)
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sqrt(x * x + y * y + 1e-6)


class WeightedSum(nn.Module):
    """v x + w y with two learned numbers, both 1 at the start, where it is Add."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.weights[0] * x + self.weights[1] * y


class FastNormalised(nn.Module):
    """(v x + w y) / (v + w + 1e-4), v and w learned numbers after a ReLU, 1 at first.

    Tan et al. 2020, EfficientDet, arXiv:1911.09070, section 3.3
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        w = torch.relu(self.weights)
        return (w[0] * x + w[1] * y) / (w[0] + w[1] + 1e-4)


class SoftmaxSum(nn.Module):
    """v x + w y, v and w the softmax of two learned numbers, both 1/2 at the start.

    Tan et al. 2020, EfficientDet, arXiv:1911.09070, section 3.3
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        w = torch.softmax(self.weights, 0)
        return w[0] * x + w[1] * y


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


class ConcatLinear(nn.Module):
    """W [x; y] + b at each pixel: concatenated, then linear back to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.cat((x, y), 1))
        return out


def concat_linear_cost(shape: Shape) -> Cost:
    both = shape._replace(channels=2 * shape.channels)
    return conv_cost(both, shape.channels, 1, bias=True)


class NormConcat(nn.Module):
    """W [norm(x); norm(y)]: each map is normalised before they are concatenated.

    For maps of different scale; Liu et al. 2016, ParseNet, arXiv:1506.04579, takes an
    L2 norm for it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_x = nn.BatchNorm2d(width)
        self.norm_y = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(2 * width, width, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat((self.norm_x(x), self.norm_y(y)), 1)
        out: Tensor = self.conv(both)
        return out


def norm_concat_cost(shape: Shape) -> Cost:
    both = shape._replace(channels=2 * shape.channels)
    return norm_cost(both) + conv_cost(both, shape.channels, 1)


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


class ShortcutGated(nn.Module):
    """y + (1 - g) x with g = sigmoid(W x + b), b = -3 and W = 0 at the start.

    "Shortcut-only gating": the transform passes whole. He et al. 2016, arXiv:1603.05027
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y + (1 - torch.sigmoid(self.gate(x))) * x


def free(shape: Shape) -> Cost:
    """Of a fusion without layers: element-wise work is not counted."""
    del shape
    return NOTHING


def weights_cost(shape: Shape) -> Cost:
    """Of two learned numbers."""
    del shape
    return Cost(0, 2, 0)
