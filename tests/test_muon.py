from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Muon

from nasfuse.muon import BatchedMuon, batches, orthogonalised

SHAPES = [(6, 27), (6, 54), (10, 54), (10, 6), (16, 16), (16, 90), (40, 3)]


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_it_does_what_torchs_does() -> None:
    ours, theirs = matrices(), matrices()
    one = BatchedMuon(ours, lr=0.1, weight_decay=0.01, momentum=0.9)
    other = Muon(theirs, lr=0.1, weight_decay=0.01, momentum=0.9)
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


@pytest.mark.parametrize("shape", [(5, 5), (3, 40)])
def test_singular_values_come_near_to_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator), torch.randn(7, 64, generator=generator)]
    for matrix, found in zip(given, orthogonalised(given), strict=True):
        assert found.shape == matrix.shape
        values = torch.linalg.svdvals(found.float())
        assert values.max() < 1.3
        assert values.min() > 0.4


def test_no_gradient_no_update() -> None:
    (found,) = orthogonalised([torch.zeros(3, 4)])
    assert not found.any()


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
