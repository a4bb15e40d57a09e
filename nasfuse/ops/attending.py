"""Attentional fusion: a gate looks at both maps before they become one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost, norm_cost


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


class IterativeAFF(nn.Module):
    """AFF of x and y, gated by attention to AFF's own output instead of to x + y.

    u = g1 * x + (1 - g1) * y with g1 as in AFF; z = g2 * x + (1 - g2) * y with
    g2 = sigmoid(L2(u) + G2(mean(u))). Dai et al. 2021, arXiv:2009.14082 (iAFF)
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        self.first = AFF(width, reduction=reduction)
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        u = self.first(x, y)
        g = torch.sigmoid(self.local(u) + self.context(u.mean((2, 3), keepdim=True)))
        return g * x + (1 - g) * y


def iterative_aff_cost(shape: Shape, reduction: int) -> Cost:
    return aff_cost(shape, reduction) + aff_cost(shape, reduction)


class MSCAMGated(nn.Module):
    """x + g * y with g = sigmoid(L(x + y) + G(mean(x + y))), AFF's attention on y.

    Dai et al. 2021, arXiv:2009.14082 (MS-CAM in the place of SE's gate)
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + y
        context = self.context(total.mean((2, 3), keepdim=True))
        return x + torch.sigmoid(self.local(total) + context) * y


class SEGated(nn.Module):
    """x + s * y with s = sigmoid(W2 relu(W1 mean(y) + b1) + b2), a number a channel.

    The residual block of SENet. Hu et al. 2018, arXiv:1709.01507
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.squeeze = nn.Conv2d(width, hidden, 1)
        self.activation = nn.ReLU()
        self.excite = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.activation(self.squeeze(y.mean((2, 3), keepdim=True)))
        return x + torch.sigmoid(self.excite(hidden)) * y


def se_gated_cost(shape: Shape, reduction: int) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    hidden = Shape(max(1, shape.channels // reduction), 1, 1)
    squeeze = conv_cost(pixel, hidden.channels, 1, bias=True)
    return squeeze + conv_cost(hidden, shape.channels, 1, bias=True)


class SelectiveKernel(nn.Module):
    """a * x + b * y, a and b the softmax of W relu(norm(V mean(x + y))) over x and y.

    V has max(width / reduction, 32) rows, and no layer has a bias. Its batch norm needs
    more than one image in training. Li et al. 2019, SKNet, arXiv:1903.06586
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(width // reduction, 32)
        self.reduce = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.activation = nn.ReLU()
        self.select = nn.Conv2d(hidden, 2 * width, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        context = (x + y).mean((2, 3), keepdim=True)
        logits = self.select(self.activation(self.norm(self.reduce(context))))
        share = torch.softmax(logits.unflatten(1, (2, -1)), 1)
        return share[:, 0] * x + share[:, 1] * y


def selective_kernel_cost(shape: Shape, reduction: int) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    hidden = Shape(max(shape.channels // reduction, 32), 1, 1)
    reduce = conv_cost(pixel, hidden.channels, 1) + norm_cost(hidden)
    return reduce + conv_cost(hidden, 2 * shape.channels, 1)
