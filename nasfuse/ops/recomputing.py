"""Dense layers that forget their inner maps and compute them again for the gradient.

What is kept for the backward pass of a DenseNet grows with the square of its depth.
Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets, arXiv:1707.06990
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nasfuse.ops.dense import Dense


def has_recomputable(network: nn.Module) -> bool:
    """Whether there is anything in a network that `recompute` would change."""
    return any(isinstance(module, Dense) for module in network.modules())


def recompute(network: nn.Module) -> None:
    """Let every dense layer of a network keep only its input while it trains.

    Outputs, gradients and batch-norm statistics stay what they are: the second forward
    pass leaves the statistics alone. A training step takes about a third longer.
    """
    for module in network.modules():
        if isinstance(module, Dense):
            module.forward = partial(_recomputed, module, module.forward)  # type: ignore[method-assign]


def _recomputed(layer: Dense, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(x)
    contexts = partial(_contexts, layer)
    out: Tensor = checkpoint(
        forward, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return out


def _contexts(
    layer: Dense,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass, and the second."""
    return nullcontext(), _statistics_kept(layer)


@contextmanager
def _statistics_kept(layer: Dense) -> Iterator[None]:
    """Batch-norm statistics and their counters are afterwards what they were before."""
    kept = [(buffer, buffer.clone()) for buffer in layer.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
