"""Muon for many small matrices: orthogonalised in batches instead of one after the other.

The update is that of `torch.optim.Muon` (Jordan 2024, https://kellerjordan.github.io/posts/muon)
with four steps, up to the rounding of bfloat16. In networks of a few million multiply-adds torch's
calls, fifteen a matrix, took a fifth of a training step; the arithmetic in them is next to nothing.
In larger ones it is not, and CPUs iterate over the small Gram matrices instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.optimizers import Eager

STEPS = 4  # torch's default of 5 was not measured to learn more per CPU-second
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # those of torch's
LEAST_NORM = 1e-7
CALLS = 5e6  # multiply-adds that take about as long as the calls of one batch


class BatchedMuon(Eager):
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
        self._batches = [_Batch.all_of(group["params"]) for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure  # of optimisers that look at the loss
        for group, parts in zip(self.param_groups, self._batches, strict=True):
            self._apply(group, parts)

    def _apply(self, group: dict[str, Any], parts: Sequence[_Batch]) -> None:
        matrices, rate, momentum = group["params"], group["lr"], group["momentum"]
        gradients = [matrix.grad for matrix in matrices]
        buffers = [self._buffer(matrix) for matrix in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        for part in parts:
            ahead = torch._foreach_lerp(part.of(gradients), part.of(buffers), momentum)
            updates = orthogonalised(part.padded(ahead), rate * part.sizes)
            torch._foreach_sub_(part.of(matrices), part.places(updates))

    def _buffer(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


class _Batch(NamedTuple):
    """Matrices that are orthogonalised together: their numbers, shapes, and sizes of update."""

    members: list[int]
    shapes: list[torch.Size]
    sizes: Tensor

    @classmethod
    def all_of(cls, matrices: Sequence[Tensor]) -> list[_Batch]:
        shapes = [_flat(matrix).shape for matrix in matrices]
        return [cls.of_some(matrices, part) for part in batches(shapes)]

    @classmethod
    def of_some(cls, matrices: Sequence[Tensor], members: list[int]) -> _Batch:
        chosen = [matrices[index] for index in members]
        wide = [math.sqrt(max(1.0, rows / columns)) for rows, columns in (m.shape for m in chosen)]
        sizes = chosen[0].new_tensor(wide).view(-1, 1, 1)
        return cls(members, [_flat(matrix).shape for matrix in chosen], sizes)

    def of(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        return [_flat(matrices[index]) for index in self.members]

    def padded(self, lying: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """(batch, m, n), the rest zeros, which add singular values of 0 that stay 0."""
        if len(lying) == 1:  # the large ones, of which a copy takes time
            return lying[0][None]
        rows, columns = (max(shape[side] for shape in self.shapes) for side in (0, 1))
        padded = self.sizes.new_zeros((len(self.members), rows, columns))
        torch._foreach_copy_(self.places(padded), lying)
        return padded

    def places(self, padded: Tensor) -> list[Tensor]:
        """Where each matrix lies in its padded one."""
        pairs = zip(padded.unbind(), self.shapes, strict=True)
        return [place[:rows, :columns] for place, (rows, columns) in pairs]


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
    return len(batch) * (2.0 * rows * rows * columns + (4 * STEPS - 3) * rows**3)


def orthogonalised(x: Tensor, sizes: Tensor) -> Tensor:
    """About U V of each U S V, times its size, by Newton-Schulz iterations.

    x: (batch, m, n) with m <= n, sizes: (batch, 1, 1).
    """
    return _by_gram(x, sizes) if x.device.type == "cpu" else _in_bf16(x, sizes)


def _in_bf16(x: Tensor, sizes: Tensor) -> Tensor:
    """Iterations over the matrices themselves, for which bfloat16 is enough."""
    norm = x.norm(dim=(1, 2), keepdim=True).clamp(min=LEAST_NORM)
    long = (x / norm).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = long @ long.mT
        long = torch.baddbmm(long, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), long, beta=a)
    result: Tensor = long * sizes
    return result


def _by_gram(x: Tensor, sizes: Tensor) -> Tensor:
    """The same over their Gram matrices (batch, m, m), in float32; x is touched at both ends only.

    A step multiplies x from the left by p = a + b g + c g^2, and so g = x x' becomes p g p. Where n
    is nine times m, as in a convolution, that is a third of the arithmetic. It needs float32: small
    errors of g grow by a^2 in every step.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    square = gram.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1).clamp(min=LEAST_NORM**2)
    gram = gram / square
    product = torch.empty(0)
    for step in range(STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor @ product if step else factor
        if step < STEPS - 1:
            gram = factor @ gram @ factor
    result: Tensor = (product * (square.rsqrt() * sizes)) @ x
    return result
