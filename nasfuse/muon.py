"""Muon for many small matrices: orthogonalised in batches instead of one after the other.

The update is that of `torch.optim.Muon` (Jordan 2024, https://kellerjordan.github.io/posts/muon),
up to the rounding of bfloat16. In networks of a few million multiply-adds torch's calls, fifteen a
matrix, took a fifth of a training step; the arithmetic in them is next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # those of torch's
LEAST_NORM = 1e-7
CALLS = 2e7  # multiply-adds that take about as long as the calls of one batch


class BatchedMuon(Optimizer):
    """Momentum with Nesterov's look ahead, of which the orthogonal factor is what is applied.

    `matrices` are parameters of shape (outputs, inputs); all need a gradient at every step. `lr`
    may be a tensor, which is read at each step without waiting for the device.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float | Tensor,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._batches = [batches([_flat(p).shape for p in g["params"]]) for g in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure  # of optimisers that look at the loss
        for group, parts in zip(self.param_groups, self._batches, strict=True):
            self._apply(group, parts)

    def _apply(self, group: dict[str, Any], parts: Sequence[Sequence[int]]) -> None:
        matrices, rate, momentum = group["params"], group["lr"], group["momentum"]
        gradients = [matrix.grad for matrix in matrices]
        buffers = [self._buffer(matrix) for matrix in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        for part in parts:
            updates = orthogonalised([_flat(ahead[index]) for index in part])
            for index, update in zip(part, updates, strict=True):
                matrix = matrices[index]
                wide = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                _flat(matrix).sub_(update * (rate * wide))

    def _buffer(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _flat(matrix: Tensor) -> Tensor:
    """Lying on its long side."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def batches(shapes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which matrices go together, by number: the next larger joins where padding costs little."""
    found: list[list[int]] = []
    for index in sorted(range(len(shapes)), key=lambda index: tuple(shapes[index])):
        if found:
            joined = [*found[-1], index]
            more = _work(shapes, joined) - _work(shapes, found[-1]) - _work(shapes, [index])
            if more <= CALLS:
                found[-1] = joined
                continue
        found.append([index])
    return found


def _work(shapes: Sequence[Sequence[int]], batch: Sequence[int]) -> float:
    """Multiply-adds of a padded batch."""
    rows, columns = (max(shapes[index][side] for index in batch) for side in (0, 1))
    return len(batch) * STEPS * (2.0 * rows * rows * columns + rows**3)


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About U V of each U S V, of matrices (m, n) with m <= n, by Newton-Schulz iterations.

    Padding with zeros adds singular values of 0, which stay 0.
    """
    rows, columns = (max(matrix.shape[side] for matrix in matrices) for side in (0, 1))
    x = matrices[0].new_zeros((len(matrices), rows, columns), dtype=torch.bfloat16)
    for place, matrix in zip(x, matrices, strict=True):
        place[: matrix.shape[0], : matrix.shape[1]] = matrix
    x /= x.norm(dim=(1, 2), keepdim=True).clamp(min=LEAST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    pairs = zip(x, matrices, strict=True)
    return [place[: matrix.shape[0], : matrix.shape[1]] for place, matrix in pairs]
