from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from nasfuse.architecture import Architecture
from nasfuse.recipe import Recipe, Rung
from nasfuse.results import Result
from nasfuse.searching.promise import BEHIND, SIDE, expected, halvings, promise
from nasfuse.searching.rungs import KEEP, Ladder

MakeResult = Callable[..., Result]


def sized(architecture: Architecture, side: int) -> Architecture:
    return architecture.model_copy(update={"resolution": side})


def test_a_short_run_is_short_by_so_many_halvings() -> None:
    recipe = Recipe().with_epochs(2)
    found = [halvings(recipe, rung) for rung in range(3)]
    assert found == pytest.approx([math.log2(2 / 0.075), 2, 0])


def test_a_first_rung_as_long_as_the_last_is_as_good() -> None:
    recipe = Recipe(rungs=(Rung(share=1, epochs=2), Rung(share=1, epochs=1)))
    assert halvings(recipe, 0) == 0


@pytest.mark.parametrize("loss", [0.0, 0.1, 2.3, 20.0, 1e4])
def test_promises_fall_with_losses_and_rise_with_resolution(loss: float) -> None:
    assert 0 < expected(loss, side=16, halved=4) <= expected(loss, side=48, halved=4) <= 1
    assert expected(loss, side=SIDE, halved=4) == pytest.approx(math.exp(-min(loss, 500)))
    assert expected(loss, side=48, halved=0) == pytest.approx(math.exp(-min(loss, 500)))
    assert expected(loss, side=24, halved=4) >= expected(loss + 0.01, side=24, halved=4)


def test_a_doubling_counts_the_same_odds_at_every_loss() -> None:
    for loss in (0.2, 0.9):
        lifted, odds = expected(loss, side=2 * SIDE, halved=4), math.expm1(loss)
        assert math.log(lifted / (1 - lifted) * odds) == pytest.approx(4 * BEHIND)


def test_short_runs_are_judged_by_the_calibrated_loss_and_full_ones_by_accuracy(
    architecture: Architecture, make_result: MakeResult
) -> None:
    known = {"architecture": sized(architecture, SIDE), "accuracy": 0.7, "loss": 0.9}
    short = make_result(0, calibrated_loss=0.8, **known)
    assert promise(short, Recipe()) == pytest.approx(math.exp(-0.8))
    assert promise(make_result(0, rung=2, calibrated_loss=0.8, **known), Recipe()) == 0.7


def test_resolution_counts_before_the_end_only(
    architecture: Architecture, make_result: MakeResult
) -> None:
    small, large = sized(architecture, 16), sized(architecture, 32)
    for rung, behind, better in ((0, 0.01, 1), (0, 0.1, 0), (1, 0.005, 1), (2, 0.01, 0)):
        results = [
            make_result(0, rung=rung, accuracy=0.81, architecture=small, macs=900),
            make_result(1, rung=rung, accuracy=0.81 - behind, architecture=large, macs=900),
            *(make_result(2 + n, rung=rung, accuracy=0.1, macs=900) for n in range(KEEP - 2)),
        ]
        ladder = Ladder(Recipe(), budget=1000)
        chosen = ladder.promotable(results, {r.step for r in results}, least=1)
        assert rung == 2 or chosen[0].number == better
        first, second = (promise(result, ladder.recipe) for result in results[:2])
        assert (second > first) == bool(better)
