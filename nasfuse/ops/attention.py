"""Attention on one map: it goes in and comes out with the same shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, conv_cost


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 act(W1 mean(x) + b1) + b2), mean over the map.

    x: (batch, width, height, width). Hu et al. 2018, Squeeze-and-Excitation Networks,
    arXiv:1709.01507
    """

    def __init__(
        self, width: int, *, squeezed: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.activation = activation()
        self.excite = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        context = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(self.activation(self.squeeze(context))))


def squeeze_excite_cost(shape: Shape, squeezed: int) -> Cost:
    pixel = Shape(shape.channels, 1, 1)
    squeeze = conv_cost(pixel, squeezed, 1, bias=True)
    return squeeze + conv_cost(Shape(squeezed, 1, 1), shape.channels, 1, bias=True)
