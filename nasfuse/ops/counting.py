"""What thop has to be told: products of matrices, which it cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nasfuse.ops.attending import CrossAttention
from nasfuse.ops.attention import NonLocal


def count_attention(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """The convolutions, which thop has counted by now, and the two products."""
    del inputs
    layers = sum(int(child.total_ops) for child in module.children())
    pixels = output.shape[2] * output.shape[3]
    width = module.key.out_channels + module.value.out_channels
    module.total_ops += layers + pixels * pixels * width


THOP_HANDLERS: dict[type[nn.Module], Callable[..., None]] = {
    CrossAttention: count_attention,
    NonLocal: count_attention,
}
