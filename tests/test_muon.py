from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Muon

from nasfuse.muon import (
    COEFFICIENTS,
    STEPS,
    BatchedMuon,
    ByGram,
    ByGramInBf16,
    InBf16,
    batches,
    orthogonalised,
    orthogonalising,
    stacked,
)

WIDE, TALL, SQUARE = [(6, 27), (6, 54), (6, 54), (10, 54)], [(10, 6), (40, 3), (40, 3)], [(16, 16)]
THIN = [(1, 1), (1, 1), (1, 9), (12, 1)]  # one number, one output, one input
SHAPES = [*THIN, *WIDE, *TALL, *SQUARE, (6, 54)]
Way = Callable[[Tensor, Tensor], Tensor]


def vector(seed: int, dtype: torch.dtype = torch.float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(map(math.prod, SHAPES)), generator=generator, dtype=dtype)


def matrices(whole: Tensor) -> list[Tensor]:
    parts = whole.split([math.prod(shape) for shape in SHAPES])  # type: ignore[no-untyped-call]
    return [part.view(shape) for part, shape in zip(parts, SHAPES, strict=True)]


def optimiser(weights: nn.Parameter) -> BatchedMuon:
    return BatchedMuon(weights, SHAPES, lr=0.1, weight_decay=0.01, momentum=0.9)


def advance(weights: nn.Parameter, one: BatchedMuon, seeds: Sequence[int]) -> None:
    for seed in seeds:
        weights.grad = vector(seed, weights.dtype)
        one.step()


def exactly(x: Tensor) -> Tensor:
    """The iterations for one matrix, written down in the plainest way."""
    a, b, c = COEFFICIENTS
    x, size = x / x.norm(), math.sqrt(max(1.0, x.shape[0] / x.shape[1]))
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x * size


def test_it_does_what_torchs_does() -> None:
    ours = nn.Parameter(vector(0))
    theirs = [nn.Parameter(matrix.clone()) for matrix in matrices(vector(0))]
    one = optimiser(ours)
    other = Muon(theirs, lr=0.1, weight_decay=0.01, momentum=0.9, ns_steps=STEPS)
    for seed in range(1, 6):
        advance(ours, one, [seed])
        for matrix, gradient in zip(theirs, matrices(vector(seed)), strict=True):
            matrix.grad = gradient
        other.step()  # type: ignore[no-untyped-call]
    for left, right in zip(matrices(ours.detach()), theirs, strict=True):
        assert (left - right).norm() < 0.01 * right.norm()


@pytest.mark.parametrize(("dtype", "error"), [(torch.double, 1e-12), (torch.float, 1e-5)])
def test_it_does_what_each_matrix_alone_would_ask_for(dtype: torch.dtype, error: float) -> None:
    weights = nn.Parameter(vector(0, dtype))
    seeds = range(1, 6)
    expected = [matrix.clone() for matrix in matrices(vector(0, dtype).double())]
    momenta = [torch.zeros_like(matrix) for matrix in expected]
    for seed in seeds:
        gradients = matrices(vector(seed, dtype).double())
        for matrix, momentum, gradient in zip(expected, momenta, gradients, strict=True):
            momentum.mul_(0.9).add_(gradient, alpha=0.1)
            matrix.mul_(1 - 0.1 * 0.01).sub_(exactly(0.1 * gradient + 0.9 * momentum), alpha=0.1)
    advance(weights, optimiser(weights), seeds)
    for found, matrix in zip(matrices(weights.detach()), expected, strict=True):
        assert (found - matrix).norm() < error * matrix.norm(), tuple(matrix.shape)


@pytest.mark.parametrize(("way", "error"), [(ByGram, 1e-4), (InBf16, 0.05)])
def test_padding_changes_no_update(way: type[ByGram | InBf16], error: float) -> None:
    """On CPUs and on GPUs."""
    weights, ahead = torch.zeros_like(vector(0)), vector(1)
    for _ in range(2):  # the second must not see what the first has left
        way(stacked(SHAPES), weights.zero_(), ahead).move(torch.tensor(0.1))
    batch = way(stacked(SHAPES), weights.zero_(), ahead)
    batch.move(torch.tensor(0.1))
    first = weights.clone()
    weights.zero_()
    batch.move(torch.tensor(0.1))
    assert torch.equal(weights, first)
    for found, x in zip(matrices(weights), matrices(ahead), strict=True):
        expected = -0.1 * exactly(x.double())
        assert (found - expected).norm() < error * expected.norm(), tuple(x.shape)


def test_large_updates_are_rounded_where_that_is_quicker() -> None:
    stacks = stacked([(8, 72), (80, 640), (640, 80)])
    ahead = torch.randn(8 * 72 + 2 * 80 * 640, generator=torch.Generator().manual_seed(0))
    exact, rounded = torch.zeros(2, len(ahead)).unbind()
    ByGram(stacks, exact, ahead).move(torch.tensor(1.0))
    ByGramInBf16(stacks, rounded, ahead).move(torch.tensor(1.0))
    assert torch.equal(exact[: 8 * 72], rounded[: 8 * 72]), "small ones are not worth it"
    assert 0 < (exact - rounded).norm() < 0.005 * exact.norm()


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_rounding_does_not_blow_up_what_is_hardly_there(rank: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right, rest = (
        torch.randn(shape, generator=generator) for shape in ((96, rank), (rank, 864), (96, 864))
    )
    ahead = (left @ right + noise * rest).flatten()
    exact, rounded = torch.zeros(2, len(ahead)).unbind()
    ByGram(stacked([(96, 864)]), exact, ahead).move(torch.tensor(1.0))
    ByGramInBf16(stacked([(96, 864)]), rounded, ahead).move(torch.tensor(1.0))
    values, wanted = (torch.linalg.svdvals(x.view(96, 864)) for x in (rounded, exact))
    assert (values - wanted).abs().max() < 0.03
    assert (exact - rounded).norm() < 0.2 * exact.norm()


def by_gram(x: Tensor, sizes: Tensor) -> Tensor:
    grams = x @ x.mT
    return orthogonalising(grams, sizes, out=torch.empty_like(grams)) @ x


WAYS = pytest.mark.parametrize("way", [by_gram, orthogonalised])  # on CPUs, on GPUs
SIZES = torch.ones(2, 1, 1)


@WAYS
@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 3, 40), (2, 48, 432)])
def test_singular_values_come_near_to_one(way: Way, shape: tuple[int, ...]) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(way(given, SIZES).float())
    assert values.max() < 1.3
    assert values.min() > 0.2


@WAYS
def test_no_gradient_no_update(way: Way) -> None:
    assert not way(torch.zeros(2, 3, 4), SIZES).any()


def test_matrices_of_low_rank_stay_finite_in_their_gram_matrix() -> None:
    """A singular value of 0 is one of about 1e-7 of either sign there, and grows."""
    generator = torch.Generator().manual_seed(0)
    thin, wide = (torch.randn(2, *s, generator=generator) for s in ((40, 2), (2, 360)))
    found, exact = (by_gram((thin @ wide).to(t), SIZES.to(t)) for t in (torch.float, torch.double))
    assert (found - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("way", [ByGram, InBf16])
def test_small_matrices_share_a_batch_and_large_ones_do_not(way: type[ByGram | InBf16]) -> None:
    stacks = stacked([(512, 4608), (6, 27), (10, 90), (54, 6), (54, 6)])
    large, small, wider, tall = stacks
    assert [stack.height for stack in stacks] == [1, 1, 1, 2]
    assert batches(stacks, way.cost) == [[small, tall, wider], [large]]


def test_it_goes_on_from_its_state() -> None:
    whole, broken = (nn.Parameter(vector(0)) for _ in range(2))
    one, first, again = optimiser(whole), optimiser(broken), optimiser(broken)
    advance(whole, one, [1, 2])
    advance(broken, first, [1])
    again.load_state_dict(first.state_dict())
    advance(broken, again, [2])
    assert torch.equal(whole, broken)


def test_a_step_reads_nothing_from_the_device() -> None:
    """A device without values has none to read."""
    weights = nn.Parameter(vector(0).to("meta"))
    weights.grad = torch.zeros_like(weights)
    rate = torch.zeros((), device="meta")
    BatchedMuon(weights, SHAPES, lr=rate, weight_decay=0.01, momentum=0.9).step()
    with pytest.raises(RuntimeError, match="meta"):
        rate.item()
