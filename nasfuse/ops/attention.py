"""Attention on one map: it goes in and comes out with the same shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.layers import ConvNorm, Mean, conv_norm_cost


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 act(W1 mean(x) + b1) + b2), mean over the map.

    x: (batch, channels, height, width). Hu et al. 2018, Squeeze-and-Excitation
    Networks, arXiv:1709.01507
    """

    def __init__(
        self, width: int, *, squeezed: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.mean = Mean()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.activation = activation()
        self.excite = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = self.squeeze(self.mean(x))
        return x * torch.sigmoid(self.excite(self.activation(context)))


def squeeze_excite_cost(shape: Shape, squeezed: int) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    squeeze = conv_cost(pixel, squeezed, 1, bias=True)
    return squeeze + conv_cost(Shape(squeezed, 1, 1), shape.channels, 1, bias=True)


class SE(nn.Module):
    """SqueezeExcite with ReLU, squeezed to width / reduction channels.

    x: (batch, channels, height, width), as all attention here takes and puts out.
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.attention = SqueezeExcite(width, squeezed=hidden, activation=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


def se_cost(shape: Shape, reduction: int) -> Cost:
    return squeeze_excite_cost(shape, max(1, shape.channels // reduction))


class ECA(nn.Module):
    """x * sigmoid(conv(mean(x))), conv over k neighbouring channels, without bias.

    k is (log2(width) + 1) / 2 rounded down, then up to an odd number, and at least 3.
    Wang et al. 2020, ECA-Net, arXiv:1910.03151
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        kernel = max(3, int((math.log2(width) + 1) / 2) // 2 * 2 + 1)
        self.mean = Mean()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        context = self.mean(x).flatten(1).unsqueeze(1)
        return x * torch.sigmoid(self.conv(context)).squeeze(1)[:, :, None, None]


def eca_cost(shape: Shape) -> Cost:
    kernel = max(3, int((math.log2(shape.channels) + 1) / 2) // 2 * 2 + 1)
    return Cost(kernel * shape.channels, kernel, kernel * shape.channels)


class CBAM(nn.Module):
    """y * sigmoid(norm(conv([max(y); mean(y)]))) with y = x * c, c a number a channel.

    c = sigmoid(M(mean(x)) + M(max(x))), over the map, M(v) = W2 relu(W1 v + b1) + b2 to
    width / reduction channels and back; then over channels, conv 7 x 7. Woo et al.
    2018, CBAM, arXiv:1807.06521, as in the authors' code
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.mean = Mean()
        self.squeeze = nn.Conv2d(width, hidden, 1)
        self.activation = nn.ReLU()
        self.excite = nn.Conv2d(hidden, width, 1)
        self.spatial = ConvNorm(2, 1, kernel=7)

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = self.mean(x), x.amax((2, 3), keepdim=True)
        means = self.excite(self.activation(self.squeeze(mean)))
        peaks = self.excite(self.activation(self.squeeze(peak)))
        y = x * torch.sigmoid(means + peaks)
        pooled = torch.cat((y.amax(1, keepdim=True), y.mean(1, keepdim=True)), 1)
        return y * torch.sigmoid(self.spatial(pooled))


def cbam_cost(shape: Shape, reduction: int) -> Cost:
    channel = se_cost(shape, reduction)
    # one set of weights, used for the mean and for the maximum
    twice = Cost(2 * channel.macs, channel.params, 2 * channel.thop)
    return twice + conv_norm_cost(shape._replace(channels=2), 1, kernel=7)


class BAM(nn.Module):
    """x * (1 + sigmoid(C(mean(x)) + S(x))), C a number a channel, S one a pixel.

    C is linear, norm, ReLU, linear by way of width / reduction channels; S is 1 x 1 to
    as many, two 3 x 3 with dilation 4, and 1 x 1 to one, normalised and activated but
    for the last. Park et al. 2018, BAM, arXiv:1807.06514, equation 2 (the authors' code
    multiplies C and S). Its norm on the mean needs more than one image in training.
    """

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.mean = Mean()
        self.channel = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(self.mean(x))
        return x * (1 + torch.sigmoid(channel + self.spatial(x)))


def bam_cost(shape: Shape, reduction: int) -> Cost:
    hidden = shape._replace(channels=max(1, shape.channels // reduction))
    pixel = Shape(hidden.channels, 1, 1)
    channel = se_cost(shape, reduction) + norm_cost(pixel)
    reduce = conv_cost(shape, hidden.channels, 1, bias=True) + norm_cost(hidden)
    middle = conv_cost(hidden, hidden.channels, 3, bias=True) + norm_cost(hidden)
    return channel + reduce + middle + middle + conv_cost(hidden, 1, 1, bias=True)


class NonLocal(nn.Module):
    """x + norm(W softmax(q k) v), q, k, v 1 x 1 of x to half the width, over pixels.

    The norm's scale is zero at the start, where this is the identity. Wang et al. 2018,
    Non-local Neural Networks, arXiv:1711.07971 (embedded Gaussian)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.query = nn.Conv2d(width, half, 1)
        self.key = nn.Conv2d(width, half, 1)
        self.value = nn.Conv2d(width, half, 1)
        self.out = nn.Conv2d(half, width, 1)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.query(x).flatten(2).transpose(1, 2)
        keys, values = self.key(x).flatten(2), self.value(x).flatten(2)
        weights = torch.softmax(torch.bmm(queries, keys).float(), 2).to(values.dtype)
        mixed = torch.bmm(weights, values.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.norm(self.out(mixed.reshape(x.shape[0], -1, *x.shape[2:])))
        return x + out


def non_local_cost(shape: Shape) -> Cost:
    half = shape._replace(channels=max(1, shape.channels // 2))
    project = conv_cost(shape, half.channels, 1, bias=True)
    back = conv_cost(half, shape.channels, 1, bias=True) + norm_cost(shape)
    multiplied = 2 * shape.pixels**2 * half.channels
    products = Cost(multiplied, 0, multiplied)
    return project + project + project + products + back


class Attention(NamedTuple):
    """An operator on one map, called with its width and settings, and its cost."""

    module: type[nn.Module]
    cost: Callable[..., Cost]


ATTENTIONS = {
    "se": Attention(SE, se_cost),
    "eca": Attention(ECA, eca_cost),
    "cbam": Attention(CBAM, cbam_cost),
    "bam": Attention(BAM, bam_cost),
    "non_local": Attention(NonLocal, non_local_cost),
}
