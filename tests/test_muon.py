from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Muon

from nasfuse.muon import STEPS, BatchedMuon, _by_gram, _in_bf16, batches

Way = Callable[[Tensor, Tensor], Tensor]
SHAPES = [(6, 27), (6, 54), (10, 54), (10, 6), (16, 16), (16, 90), (40, 3)]


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_it_does_what_torchs_does() -> None:
    ours, theirs = matrices(), matrices()
    one = BatchedMuon(ours, lr=0.1, weight_decay=0.01, momentum=0.9)
    other = Muon(theirs, lr=0.1, weight_decay=0.01, momentum=0.9, ns_steps=STEPS)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        one.step()
        other.step()  # type: ignore[no-untyped-call]
    for left, right in zip(ours, theirs, strict=True):
        moved = (right - torch.zeros(())).norm()
        assert (left - right).norm() < 0.01 * moved


WAYS = pytest.mark.parametrize("way", [_by_gram, _in_bf16])  # on CPUs, on GPUs
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
    found, exact = (_by_gram((thin @ wide).to(t), SIZES.to(t)) for t in (torch.float, torch.double))
    assert (found - exact).norm() < 0.02 * exact.norm()


def test_small_matrices_share_a_batch_and_large_ones_do_not() -> None:
    parts = batches([(512, 4608), (6, 27), (10, 90), (6, 54)])
    assert parts == [[1, 3, 2], [0]]


def test_it_goes_on_from_its_state() -> None:
    whole, broken = matrices(), matrices()

    def optimiser(found: list[nn.Parameter]) -> BatchedMuon:
        return BatchedMuon(found, lr=0.1, weight_decay=0.0, momentum=0.9)

    def advance(found: list[nn.Parameter], one: BatchedMuon, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for matrix in found:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        one.step()

    one, first = optimiser(whole), optimiser(broken)
    advance(whole, one, 0)
    advance(broken, first, 0)
    again = optimiser(broken)
    again.load_state_dict(first.state_dict())
    advance(whole, one, 1)
    advance(broken, again, 1)
    for left, right in zip(whole, broken, strict=True):
        assert torch.equal(left, right)
