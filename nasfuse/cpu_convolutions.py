"""Detours around convolutions that oneDNN, which computes them on CPUs, does badly in training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LANES = 8  # channels: the numbers of float32 in a vector of AVX2


def go_around(network: nn.Module, *, bf16: bool) -> None:
    """Change how some convolutions of a network are computed; what they give stays the same.

    Depthwise ones leave bfloat16 where gradients are asked for: the backward pass takes oneDNN up
    to 20 times as long in it where the stride is 2 or the kernel is 5. Strided ones of one pixel
    with few channels look at the pixels that count only: with AVX2 the gradient of their weights is
    written beyond its end (torch 2.13, issue 6035 of oneDNN), and the process dies sooner or later.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if bf16 and 1 < module.groups == module.in_channels:
                module.forward = _float32(module.forward)  # type: ignore[method-assign, assignment]
            elif _narrow(module):
                module.forward = _subsampled(module)  # type: ignore[method-assign, assignment]


def _float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wrapped(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float()).to(x.dtype)

    return wrapped


def _narrow(module: nn.Conv2d) -> bool:
    strided = module.kernel_size == (1, 1) and module.stride != (1, 1)
    return strided and module.padding == (0, 0) and module.in_channels < LANES


def _subsampled(module: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    down, right = module.stride

    def forward(x: Tensor) -> Tensor:
        return functional.conv2d(
            x[..., ::down, ::right], module.weight, module.bias, groups=module.groups
        )

    return forward
