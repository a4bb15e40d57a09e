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
    assert [halvings(recipe, rung) for rung in range(3)] == pytest.approx([math.log2(20), 2, 0])


def test_a_first_rung_as_long_as_the_last_is_as_good() -> None:
    recipe = Recipe(rungs=(Rung(share=1, epochs=2), Rung(share=1, epochs=1)))
    assert halvings(recipe, 0) == 0


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.85, 1.0])
def test_promises_rise_with_accuracy_and_resolution(accuracy: float) -> None:
    assert 0 < expected(accuracy, side=16, halvings=4) < expected(accuracy, side=48, halvings=4) < 1
    assert expected(accuracy, side=48, halvings=0) == accuracy
    assert expected(accuracy, side=SIDE, halvings=4) == pytest.approx(accuracy, abs=1e-5)
    assert expected(accuracy, side=24, halvings=4) <= expected(accuracy + 0.01, side=24, halvings=4)


def test_a_doubling_counts_the_same_odds_at_every_accuracy() -> None:
    for accuracy in (0.2, 0.9):
        lifted = expected(accuracy, side=2 * SIDE, halvings=4)
        odds = lifted / (1 - lifted) / (accuracy / (1 - accuracy))
        assert math.log(odds) == pytest.approx(4 * BEHIND)


def test_resolution_counts_before_the_end_only(
    architecture: Architecture, make_result: MakeResult
) -> None:
    small, large = sized(architecture, 16), sized(architecture, 32)
    for rung, behind, better in ((0, 0.01, 1), (0, 0.1, 0), (1, 0.01, 1), (2, 0.01, 0)):
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
