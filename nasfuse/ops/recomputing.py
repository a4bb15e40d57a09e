"""Dense blocks that forget their inner maps and compute them again for the gradient.

What is kept for the backward pass of a DenseNet grows with the square of its depth:
each layer keeps all maps before it, several times (Pleiss et al. 2017, Memory-Efficient
Implementation of DenseNets, arXiv:1707.06990). Here a stage is cut into segments of
about the square root of its blocks; only their inputs are kept, and one segment at a
time is computed again (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost,
arXiv:1604.06174).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nasfuse.ops.dense import Dense

Segment = Sequence[nn.Module]


def has_recomputable(network: nn.Module) -> bool:
    """Whether there is anything in a network that `recompute` would change."""
    return any(isinstance(module, Dense) for module in network.modules())


def recompute(network: nn.Module) -> None:
    """Let the dense blocks of a network be computed again while it trains.

    Outputs, gradients and batch-norm statistics stay what they are: the second forward
    pass leaves the statistics alone. A training step takes about a third longer.
    """
    inside: set[nn.Module] = set()  # of blocks, which are not cut again
    for module in network.modules():
        if module in inside or not isinstance(module, nn.Sequential):
            continue
        if any(map(_is_dense, module)):
            inside.update(*(block.modules() for block in module if _is_dense(block)))
            module.forward = partial(_in_segments, module, _segments(module))  # type: ignore[method-assign]


def _is_dense(block: nn.Module) -> bool:
    """Whether this is one dense layer, alone or in the block around it."""
    return sum(isinstance(module, Dense) for module in block.modules()) == 1


def _segments(stage: nn.Sequential) -> list[tuple[bool, Segment]]:
    """The modules of a stage in their order; True: to be computed again."""
    found: list[tuple[bool, Segment]] = []
    for dense, run in groupby(stage, _is_dense):
        blocks = list(run)
        size = max(1, round(math.sqrt(len(blocks))))
        found += [(dense, blocks[i : i + size]) for i in range(0, len(blocks), size)]
    return found


def _in_segments(
    stage: nn.Sequential, segments: Sequence[tuple[bool, Segment]], x: Tensor
) -> Tensor:
    trains = stage.training and torch.is_grad_enabled()
    for dense, blocks in segments:
        if dense and trains:
            x = checkpoint(
                partial(_run, blocks),
                x,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing in a block is random
                context_fn=partial(_contexts, blocks),
            )
        else:
            x = _run(blocks, x)
    return x


def _run(blocks: Segment, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _contexts(
    blocks: Segment,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass, and the second."""
    return nullcontext(), _statistics_kept(blocks)


@contextmanager
def _statistics_kept(blocks: Segment) -> Iterator[None]:
    """Batch-norm statistics and their counters are afterwards what they were before."""
    buffers = [buffer for block in blocks for buffer in block.buffers()]
    kept = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
