"""Attentional fusion: a gate looks at the maps before they become one.

Maps are not stacked: a stack does not lie channels last, and mixed layouts take CPUs up
to 15 times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.attention import SqueezeExcite, se_cost
from nasfuse.ops.layers import ConvNorm, Mean, conv_norm_cost


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
        return self.norm2(self.expand(self.activation(self.norm1(self.reduce(x)))))


def bottleneck_cost(shape: Shape, reduction: int) -> Cost:
    hidden = shape._replace(channels=max(1, shape.channels // reduction))
    reduce = conv_cost(shape, hidden.channels, 1, bias=True) + norm_cost(hidden)
    return reduce + conv_cost(hidden, shape.channels, 1, bias=True) + norm_cost(shape)


class AFF(nn.Module):
    """scale (g * x + (1 - g) * y) with g = sigmoid(L(x + y) + G(mean(x + y))).

    L looks at each pixel, G at the whole map, each a Bottleneck. Its batch norm on the
    mean needs more than one image in training. Dai et al. 2021, Attentional Feature
    Fusion, arXiv:2009.14082, equation 4; the authors' code has a scale of 2.
    """

    def __init__(self, width: int, *, reduction: int, scale: float = 1) -> None:
        super().__init__()
        self.scale = scale
        self.mean = Mean()
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + y
        g = torch.sigmoid(self.local(total) + self.context(self.mean(total)))
        return self.scale * torch.addcmul(y, g, x - y)


def aff_cost(shape: Shape, reduction: int, *, scale: float = 1) -> Cost:
    del scale
    pixel = Shape(shape.channels, 1, 1)
    return bottleneck_cost(shape, reduction) + bottleneck_cost(pixel, reduction)


class IterativeAFF(nn.Module):
    """AFF of x and y, gated by attention to AFF's own output instead of to x + y.

    u = g1 * x + (1 - g1) * y with g1 as in AFF; z = g2 * x + (1 - g2) * y with
    g2 = sigmoid(L2(u) + G2(mean(u))). Dai et al. 2021, arXiv:2009.14082 (iAFF). The
    authors' PyTorch code has G1 in the place of G2 (`shared`), whose weights idle then.
    """

    def __init__(self, width: int, *, reduction: int, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.first = AFF(width, reduction=reduction)
        self.mean = Mean()
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        u = self.first(x, y)
        context = self.first.context if self.shared else self.context
        g = torch.sigmoid(self.local(u) + context(self.mean(u)))
        return torch.addcmul(y, g, x - y)


def iterative_aff_cost(shape: Shape, reduction: int, *, shared: bool = False) -> Cost:
    del shared  # the weights are there, used or not, and one branch costs as another
    return aff_cost(shape, reduction) + aff_cost(shape, reduction)


class MSCAMGated(nn.Module):
    """x + g * y with g = sigmoid(L(x + y) + G(mean(x + y))), AFF's attention on y.

    Dai et al. 2021, arXiv:2009.14082 (MS-CAM in the place of SE's gate)
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        self.mean = Mean()
        self.local = Bottleneck(width, reduction=reduction)
        self.context = Bottleneck(width, reduction=reduction)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + y
        context = self.context(self.mean(total))
        return x + torch.sigmoid(self.local(total) + context) * y


class SEGated(nn.Module):
    """x + s * y with s = sigmoid(W2 relu(W1 mean(y) + b1) + b2), a number a channel.

    The residual block of SENet. Hu et al. 2018, arXiv:1709.01507
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.attention = SqueezeExcite(width, squeezed=hidden, activation=nn.ReLU)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.attention(y)


def se_gated_cost(shape: Shape, reduction: int) -> Cost:
    return se_cost(shape, reduction)


class SelectiveKernel(nn.Module):
    """a * x + b * y + ..., shares in each channel from the mean of the maps' sum.

    They are the softmax over maps of W relu(norm(V mean(x + y + ...))), V with
    max(width / reduction, 32) rows, and no layer has a bias. Its batch norm needs more
    than one image in training. Li et al. 2019, SKNet, arXiv:1903.06586
    """

    def __init__(self, width: int, *, reduction: int, inputs: int = 2) -> None:
        super().__init__()
        hidden = max(width // reduction, 32)
        self.inputs = inputs
        self.mean = Mean()
        self.reduce = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.activation = nn.ReLU()
        self.select = nn.Conv2d(hidden, inputs * width, 1, bias=False)

    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for y in maps[1:]:
            total = total + y
        context = self.reduce(self.mean(total))
        logits = self.select(self.activation(self.norm(context)))
        shares = torch.softmax(logits.unflatten(1, (self.inputs, -1)), 1)
        mixed = shares[:, 0] * maps[0]
        for index, y in enumerate(maps[1:], 1):
            mixed = mixed + shares[:, index] * y
        return mixed


def selective_kernel_cost(shape: Shape, reduction: int, *, inputs: int = 2) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    hidden = Shape(max(shape.channels // reduction, 32), 1, 1)
    reduce = conv_cost(pixel, hidden.channels, 1) + norm_cost(hidden)
    return reduce + conv_cost(hidden, inputs * shape.channels, 1)


class SpatialWeights(nn.Module):
    """a * x + b * y + ..., shares at each pixel from 1 x 1 convolutions of the maps.

    They are the softmax over maps of W [c(x); c'(y); ...] + b, each c a 1 x 1
    convolution to 16 channels with norm and leaky ReLU. Liu et al. 2019, ASFF,
    arXiv:1911.09516, at equal sizes
    """

    def __init__(self, width: int, *, inputs: int = 2) -> None:
        super().__init__()
        self.squeezes = nn.ModuleList(
            ConvNorm(width, 16, kernel=1) for _ in range(inputs)
        )
        self.activation = nn.LeakyReLU(0.1)
        self.weigh = nn.Conv2d(16 * inputs, inputs, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        seen = [
            self.activation(squeeze(x))
            for squeeze, x in zip(self.squeezes, maps, strict=True)
        ]
        shares = torch.softmax(self.weigh(torch.cat(seen, 1)), 1)
        mixed = shares[:, :1] * maps[0]
        for index, y in enumerate(maps[1:], 1):
            mixed = mixed + shares[:, index : index + 1] * y
        return mixed


def spatial_weights_cost(shape: Shape, *, inputs: int = 2) -> Cost:
    seen = shape._replace(channels=16 * inputs)
    squeeze = conv_norm_cost(shape, 16, kernel=1)
    squeezes = Cost(*(inputs * number for number in squeeze))
    return squeezes + conv_cost(seen, inputs, 1, bias=True)


class CrossAttention(nn.Module):
    """y + norm(Wo softmax(q k / sqrt(d)) v): y asks, x answers, over all pixels.

    q = Wq y and k = Wk x have d = width / reduction channels, v = Wv x the width; no
    1 x 1 convolution has a bias. The norm's scale is zero at first, where this is y.
    Its cost grows with the square of the pixels.
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.scale = hidden**-0.5
        self.query = nn.Conv2d(width, hidden, 1, bias=False)
        self.key = nn.Conv2d(width, hidden, 1, bias=False)
        self.value = nn.Conv2d(width, width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        queries = self.query(y).flatten(2).transpose(1, 2)
        keys, values = self.key(x).flatten(2), self.value(x).flatten(2)
        logits = self.scale * torch.bmm(queries, keys).float()
        weights = torch.softmax(logits, 2).to(values.dtype)
        mixed = torch.bmm(weights, values.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.norm(self.out(mixed.reshape(y.shape)))
        return y + out


def cross_attention_cost(shape: Shape, reduction: int) -> Cost:
    hidden = max(1, shape.channels // reduction)
    ask, answer = conv_cost(shape, hidden, 1), conv_cost(shape, shape.channels, 1)
    multiplied = shape.pixels**2 * (hidden + shape.channels)
    products = Cost(multiplied, 0, multiplied)
    return ask + ask + answer + answer + products + norm_cost(shape)
