"""Layouts: in training on CPUs all maps and their gradients lie channels last.

Where one does not, so does nothing that is computed from it and others, and operators on mixed
layouts take up to 15 times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nasfuse.ops.layers import Mean


def keep_channels_last(network: nn.Module) -> None:
    """Change how some modules of a network compute; what they give stays the same.

    The gradient of Tensor.mean lies channels first. And a map of one channel can lie either way,
    so a convolution takes the other one.
    """
    for module in network.modules():
        if isinstance(module, Mean):
            module.forward = _Mean.apply  # type: ignore[method-assign]
        elif isinstance(module, nn.Conv2d) and module.in_channels == 1:
            module.forward = _of_one_channel(module.forward)  # type: ignore[method-assign, assignment]


class _Mean(torch.autograd.Function):
    """Of each channel, (batch, channels, 1, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape
        share = gradient.reshape(batch, 1, channels) / (height * width)
        rows = share.repeat(1, height, width)  # several times as fast as expanding
        maps: Tensor = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return maps


def _of_one_channel(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wrapped(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        return forward(x.reshape(batch, height, width, 1).permute(0, 3, 1, 2))

    return wrapped
