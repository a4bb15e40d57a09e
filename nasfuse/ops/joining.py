"""Fusion without attention: maps of one height and width become one map.

Most take any number of maps; those that hold weights are told how many by `inputs`. At
a skip there are two: x is the skip's input (through its shortcut), y the block's
transform of it. A gate on the identity path starts close to the identity, which is part
of the operator: left at one half, it is the gate's start and not its merit that a
search would rank (He et al. 2016, arXiv:1603.05027, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost


class Add(nn.Module):
    """x + y + ... He et al. 2016, Deep Residual Learning, arXiv:1512.03385

    Each map: (batch, channels, height, width), as all fusions but Concat and DualPath
    take them.
    """

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for y in others:
            x = x + y
        return x


class Multiply(nn.Module):
    """x * (1 + tanh(y)): a product in which y = 0 leaves x as it is.

    The bare product x * y loses the identity path; this one keeps it.
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (1 + torch.tanh(y))


class Max(nn.Module):
    """max(x, y, ...) in each element; of two equal ones each gets half the gradient.

    Goodfellow et al. 2013, Maxout Networks, arXiv:1302.4389
    """

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for y in others:
            x = torch.maximum(x, y)
        return x


class Modulus(nn.Module):
    """sqrt(x^2 + y^2 + ... + 1e-6), of two maps the modulus of x + iy.

    The small number keeps the gradient finite at 0. Yang et al. 2003, Feature fusion:
    parallel strategy vs. serial strategy, Pattern Recognition 36(6)
    """

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        total = x * x
        for y in others:
            total = total + y * y
        return torch.sqrt(total + 1e-6)


class RealImaginary(nn.Module):
    """[x; y]: real and imaginary parts of x + iy side by side, twice the width.

    Yang et al. 2003, Feature fusion: parallel strategy vs. serial strategy, Pattern
    Recognition 36(6)
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x, y), 1)


class WeightedSum(nn.Module):
    """v x + w y + ..., a learned number a map, all 1 at the start, where it is Add."""

    def __init__(self, *, inputs: int = 2) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        total = self.weights[0] * x
        for w, y in zip(self.weights[1:], others, strict=True):
            total = total + w * y
        return total


class FastNormalised(nn.Module):
    """(v x + w y + ...) / (v + w + ... + 1e-4), learned numbers after ReLU, 1 at first.

    Tan et al. 2020, EfficientDet, arXiv:1911.09070, section 3.3
    """

    def __init__(self, *, inputs: int = 2) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        weights = torch.relu(self.weights)
        shares = weights / (weights.sum() + 1e-4)
        total = shares[0] * x
        for w, y in zip(shares[1:], others, strict=True):
            total = total + w * y
        return total


class SoftmaxSum(nn.Module):
    """v x + w y + ..., the softmax of a learned number a map, equal at the start.

    Tan et al. 2020, EfficientDet, arXiv:1911.09070, section 3.3
    """

    def __init__(self, *, inputs: int = 2) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        shares = torch.softmax(self.weights, 0)
        total = shares[0] * x
        for w, y in zip(shares[1:], others, strict=True):
            total = total + w * y
        return total


class Concat(nn.Module):
    """[x; y; ...]: channels are appended, and the map grows.

    x: (batch, channels, height, width), y: (batch, growth, height, width).
    Huang et al. 2017, Densely Connected Convolutional Networks, arXiv:1608.06993
    """

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class DualPath(nn.Module):
    """[x' + y'; x"; y"], x' and y' the first `width` channels, x" and y" the others.

    x: (batch, width or more, height, width), y: (batch, width + growth, height, width).
    Chen et al. 2017, Dual Path Networks, arXiv:1707.01629
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, *before = self._parts(x)
        second, *new = self._parts(y)
        return torch.cat((first + second, *before, *new), 1)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split, not sliced, and never empty: else gradients do not lie as maps do."""
        more = x.shape[1] - self.width
        return torch.split(x, [self.width, more], 1) if more else (x,)


class ConcatConv(nn.Module):
    """relu(norm(W [x; y; ...])): concatenated, then 1 x 1 back to the width.

    As in the transitions of Wang et al. 2020, CSPNet, arXiv:1911.11929
    """

    def __init__(self, width: int, *, inputs: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs * width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()

    def forward(self, *maps: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(torch.cat(maps, 1))))


def concat_conv_cost(shape: Shape, *, inputs: int = 2) -> Cost:
    both = shape._replace(channels=inputs * shape.channels)
    return conv_cost(both, shape.channels, 1) + norm_cost(shape)


class ConcatLinear(nn.Module):
    """W [x; y; ...] + b at each pixel: concatenated, then linear back to the width."""

    def __init__(self, width: int, *, inputs: int = 2) -> None:
        super().__init__()
        self.linear = nn.Conv2d(inputs * width, width, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.linear(torch.cat(maps, 1))


def concat_linear_cost(shape: Shape, *, inputs: int = 2) -> Cost:
    both = shape._replace(channels=inputs * shape.channels)
    return conv_cost(both, shape.channels, 1, bias=True)


class NormConcat(nn.Module):
    """W [norm(x); norm(y); ...]: each map is normalised before they are concatenated.

    For maps of different scale; Liu et al. 2016, ParseNet, arXiv:1506.04579, takes an
    L2 norm for it.
    """

    def __init__(self, width: int, *, inputs: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(inputs))
        self.conv = nn.Conv2d(inputs * width, width, 1, bias=False)

    def forward(self, *maps: Tensor) -> Tensor:
        normed = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        return self.conv(torch.cat(normed, 1))


def norm_concat_cost(shape: Shape, *, inputs: int = 2) -> Cost:
    both = shape._replace(channels=inputs * shape.channels)
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
        return torch.addcmul(x, g, y - x)


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


def weights_cost(shape: Shape, *, inputs: int = 2) -> Cost:
    """Of a learned number a map."""
    del shape
    return Cost(0, inputs, 0)
