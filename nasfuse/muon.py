"""Muon for many small matrices: orthogonalised in batches instead of one after the other.

The update is that of `torch.optim.Muon` (Jordan 2024, https://kellerjordan.github.io/posts/muon)
with three steps, up to the rounding of bfloat16. In networks of a few million multiply-adds torch's
calls, fifteen a matrix, took a fifth of a training step; the arithmetic in them is next to nothing.
In larger ones it is not, and CPUs iterate over the small Gram matrices instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.optimizers import Eager

STEPS = 3  # torch's default of 5, and 4, were not measured to learn more per step
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # those of torch's
LEAST_NORM = 1e-7
HALVED = 64  # rows from which converting to bfloat16 takes less time than it saves
CUBES = 4 * STEPS - 3  # products of Gram matrices


class BatchedMuon(Eager):
    """Momentum with Nesterov's look ahead, of which the orthogonal factor is what is applied.

    `vector` (n) is matrices one after the other, row by row, with `shapes` of (outputs, inputs);
    equal ones should be neighbours. It needs a gradient at every step. `lr` may be a tensor, which
    is read at each step without waiting for the device. `bf16` says that CPUs multiply such numbers
    in hardware; on GPUs all products are of them.
    """

    def __init__(
        self,
        vector: nn.Parameter,
        shapes: Sequence[Sequence[int]],
        lr: float | Tensor,
        weight_decay: float,
        momentum: float,
        *,
        bf16: bool = False,
    ) -> None:
        super().__init__([vector], {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._ahead = torch.zeros_like(vector)
        way: type[_Batch] = InBf16
        if vector.device.type == "cpu":
            way = ByGramInBf16 if bf16 else ByGram
        found = batches(stacked(shapes), way.cost)
        self._batches = [way(stacks, vector.detach(), self._ahead) for stacks in found]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        del closure  # of optimisers that look at the loss
        (group,) = self.param_groups
        (vector,) = group["params"]
        rate, momentum, buffer = group["lr"], group["momentum"], self.momentum(vector)
        buffer.lerp_(vector.grad, 1 - momentum)
        torch.lerp(vector.grad, buffer, momentum, out=self._ahead)
        vector.mul_(1 - rate * group["weight_decay"])
        for batch in self._batches:
            batch.move(rate)


class Stack(NamedTuple):
    """Equal matrices, one after the other in a vector."""

    start: int
    height: int  # how many
    outputs: int
    inputs: int

    @property
    def sides(self) -> tuple[int, int]:
        """The shorter and the longer."""
        return min(self.outputs, self.inputs), max(self.outputs, self.inputs)

    def of(self, vector: Tensor) -> Tensor:
        """A view (height, m, n) of them, lying on the longer side."""
        shape = self[1:]
        matrices = vector.narrow(0, self.start, math.prod(shape)).view(shape)
        return matrices if self.outputs <= self.inputs else matrices.mT


def stacked(shapes: Iterable[Sequence[int]]) -> list[Stack]:
    """Matrices (outputs, inputs) that lie one after the other; equal neighbours are a stack."""
    found: list[Stack] = []
    start = 0
    for (outputs, inputs), equal in groupby(shapes, key=tuple):
        found.append(Stack(start, len(list(equal)), outputs, inputs))
        start += math.prod(found[-1][1:])
    return found


def batches(stacks: Iterable[Stack], cost: Callable[[Sequence[Stack]], float]) -> list[list[Stack]]:
    """Which stacks go together: the next larger joins where two batches would not cost less."""
    found: list[list[Stack]] = []
    for stack in sorted(stacks, key=lambda stack: stack.sides):
        if found and cost([*found[-1], stack]) <= cost(found[-1]) + cost([stack]):
            found[-1].append(stack)
        else:
            found.append([stack])
    return found


class _Batch(ABC):
    """Stacks that are orthogonalised together: those of `ahead`, to move those of `weights`."""

    def __init__(self, stacks: Sequence[Stack], weights: Tensor, ahead: Tensor) -> None:
        sizes = [math.sqrt(max(1.0, s.outputs / s.inputs)) for s in stacks for _ in range(s.height)]
        self.sizes = weights.new_tensor(sizes).view(-1, 1, 1)  # of the updates
        self.weights, self.ahead = ([stack.of(v) for stack in stacks] for v in (weights, ahead))
        self.shapes = [tuple(x.shape) for x in self.ahead]

    @staticmethod
    @abstractmethod
    def cost(stacks: Sequence[Stack]) -> float:
        """In multiply-adds; calls take the time of some."""

    @abstractmethod
    def move(self, rate: float | Tensor) -> None:
        """Subtract the orthogonal factors, times their sizes and the rate."""


class ByGram(_Batch):
    """By the Gram matrices, which alone are padded.

    Where n is nine times m, as in a convolution, that is a third of the arithmetic.
    """

    def __init__(self, stacks: Sequence[Stack], weights: Tensor, ahead: Tensor) -> None:
        super().__init__(stacks, weights, ahead)
        height, side, _ = _padded(stacks)
        self.padded = weights.new_zeros(2, height, side, side).unbind()
        shapes = [(height, rows, rows) for height, rows, _ in self.shapes]
        self.grams, self.factors = (_corners(padded, shapes) for padded in self.padded)

    @staticmethod
    def cost(stacks: Sequence[Stack]) -> float:
        height, side, _ = _padded(stacks)
        return 2e6 + height * CUBES * side**3

    def move(self, rate: float | Tensor) -> None:
        ahead = [self.rounded(x) for x in self.ahead]
        for x, gram in zip(ahead, self.grams, strict=True):
            if x.dtype == gram.dtype:
                torch.bmm(x, x.mT, out=gram)
            else:
                gram.copy_(torch.bmm(x, x.mT))
        grams, factors = self.padded
        orthogonalising(grams, self.sizes * -rate, out=factors)
        for weights, factor, x in zip(self.weights, self.factors, ahead, strict=True):
            if x.dtype == factor.dtype:
                weights.baddbmm_(factor, x)
            else:
                weights.add_(torch.bmm(factor.to(x.dtype), x))

    def rounded(self, x: Tensor) -> Tensor:
        """As products with it are to take it."""
        return x


class ByGramInBf16(ByGram):
    """The same, of which large products with the matrices are of bfloat16.

    Gram matrices too: their rounding grows with every step, and three are few enough.
    """

    def rounded(self, x: Tensor) -> Tensor:
        return x.bfloat16() if x.shape[1] >= HALVED else x


class InBf16(_Batch):
    """By the matrices themselves, padded."""

    def __init__(self, stacks: Sequence[Stack], weights: Tensor, ahead: Tensor) -> None:
        super().__init__(stacks, weights, ahead)
        self.padded = weights.new_zeros(_padded(stacks))

    @staticmethod
    def cost(stacks: Sequence[Stack]) -> float:
        height, rows, columns = _padded(stacks)
        return 5e6 + height * (CUBES * rows**3 + 2 * rows**2 * columns)

    def move(self, rate: float | Tensor) -> None:
        torch._foreach_copy_(_corners(self.padded, self.shapes), self.ahead)
        updates = orthogonalised(self.padded, self.sizes * rate)
        torch._foreach_sub_(self.weights, _corners(updates, self.shapes))


def _padded(stacks: Sequence[Stack]) -> tuple[int, int, int]:
    """The shape (batch, m, n) in which all have room."""
    rows, columns = (max(stack.sides[side] for stack in stacks) for side in (0, 1))
    return sum(stack.height for stack in stacks), rows, columns


def _corners(padded: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Where tensors of these shapes (height, rows, columns) lie in a batch (batch, m, n)."""
    parts = torch.split(padded, [height for height, _, _ in shapes])
    return [
        part[:, :rows, :columns] for part, (_, rows, columns) in zip(parts, shapes, strict=True)
    ]


def orthogonalised(x: Tensor, sizes: Tensor) -> Tensor:
    """About U V of each U S V, times its size, by Newton-Schulz iterations in bfloat16.

    x: (batch, m, n) with m <= n, sizes: (batch, 1, 1). Zeros that x is padded with add singular
    values of 0, which stay 0.
    """
    norm = x.norm(dim=(1, 2), keepdim=True).clamp(min=LEAST_NORM)
    long = (x / norm).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = long @ long.mT
        long = torch.baddbmm(long, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), long, beta=a)
    result: Tensor = long * sizes
    return result


def orthogonalising(grams: Tensor, sizes: Tensor, *, out: Tensor) -> Tensor:
    """What to multiply each x = U S V with from the left to get about U V, times its size.

    A step multiplies x by p = a + b g + c g^2, and so g = x x' becomes p g p. It needs float32:
    small errors of g grow by a^2 in every step.

    grams and out: (batch, m, m), sizes: (batch, 1, 1).
    """
    a, b, c = COEFFICIENTS
    square = grams.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1).clamp_(min=LEAST_NORM**2)
    gram = grams / square
    product = gram
    for step in range(STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # p but for a
        if step:
            product = torch.baddbmm(product, factor, product, beta=a)
        else:
            product = factor.clone()
            product.diagonal(dim1=1, dim2=2).add_(a)
        if step < STEPS - 1:
            half = torch.baddbmm(gram, factor, gram, beta=a)
            gram = torch.baddbmm(half, half, factor, beta=a)
    return torch.mul(product, square.rsqrt_().mul_(sizes), out=out)
