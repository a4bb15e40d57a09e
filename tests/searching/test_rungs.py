from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from nasfuse.recipe import Recipe
from nasfuse.results import Result, Step
from nasfuse.searching.rungs import KEEP, RESUME, Ladder, band, standing

MakeResult = Callable[..., Result]
BUDGET = 1000


def ladder() -> Ladder:
    return Ladder(Recipe(), budget=BUDGET)


@pytest.mark.parametrize(("macs", "number"), [(1000, 0), (501, 0), (500, 1), (251, 1), (1, 9)])
def test_bands_are_doublings_below_the_budget(macs: int, number: int) -> None:
    assert band(macs, BUDGET) == number


def started(results: list[Result]) -> set[Step]:
    return {r.step for r in results}


def test_the_best_of_a_band_go_on(make_result: MakeResult) -> None:
    results = [make_result(n, accuracy=n / 20, macs=900) for n in range(2 * KEEP)]
    chosen = ladder().promotable(results, started(results), least=0)
    assert [r.number for r in chosen] == [2 * KEEP - 1, 2 * KEEP - 2]


def test_of_paused_runs_the_first_and_then_one_in_some_go_on(make_result: MakeResult) -> None:
    for count, on in ((1, 1), (RESUME, 1), (RESUME + 1, 2)):
        paused = [make_result(n, rung=1, accuracy=n / 20, macs=900) for n in range(count)]
        chosen = ladder().promotable(paused, started(paused), least=0)
        assert [r.number for r in chosen] == list(range(count))[::-1][:on]


def test_shares_of_networks_by_rung() -> None:
    assert ladder().shares == pytest.approx([1, 1 / KEEP, 1 / KEEP / RESUME])


def test_few_results_send_nobody_until_the_end(make_result: MakeResult) -> None:
    results = [make_result(n, accuracy=n / 20, macs=900) for n in range(KEEP - 1)]
    assert not ladder().promotable(results, started(results), least=0)
    best = ladder().promotable(results, started(results), least=1)
    assert [r.number for r in best] == [KEEP - 2]


def test_small_networks_are_compared_with_small_ones(make_result: MakeResult) -> None:
    small = [make_result(n, accuracy=0.1 + n / 100, macs=100) for n in range(KEEP)]
    large = [make_result(20 + n, accuracy=0.8 + n / 100, macs=900) for n in range(KEEP)]
    chosen = ladder().promotable(small + large, started(small + large), least=0)
    assert {r.number for r in chosen} == {KEEP - 1, 20 + KEEP - 1}


def test_what_time_is_left_goes_to_the_best_of_each_band_in_turn(make_result: MakeResult) -> None:
    small = [make_result(n, accuracy=0.1 + n / 100, macs=100) for n in range(3)]
    large = [make_result(20 + n, accuracy=0.8 - n / 100, macs=900 - 10 * n) for n in range(3)]
    paused = [make_result(22, rung=1, accuracy=0.7, macs=880)]
    results, climbing = [*small, *large, *paused], ladder()
    begun = started(results)
    turns = []
    while following := climbing.following(results, begun):
        turns.append([(r.rung, r.number) for r in following])
        begun |= {Step(r.key, r.rung + 1) for r in following}
    assert turns == [[(0, 2), (0, 20), (1, 22)], [(0, 1), (0, 21)], [(0, 0)]]


def test_bands_are_of_the_cost_that_is_to_be_low(make_result: MakeResult) -> None:
    """Here parameters: networks of as many MACs are compared with those of their own size only."""
    common = {"objective": "params", "macs": 900}
    small = [make_result(n, accuracy=0.1 + n / 100, params=100, **common) for n in range(KEEP)]
    large = [
        make_result(20 + n, accuracy=0.8 + n / 100, params=9000, **common) for n in range(KEEP)
    ]
    chosen = ladder().promotable(small + large, started(small + large), least=0)
    assert {r.number for r in chosen} == {KEEP - 1, 20 + KEEP - 1}


def test_nobody_goes_twice_and_failures_never(make_result: MakeResult) -> None:
    results = [make_result(n, accuracy=n / 20, macs=900) for n in range(KEEP)]
    failed = make_result(9, status="failed", accuracy=None, loss=None, cause="x", macs=900)
    begun = started([*results, failed]) | {Step(results[-1].key, 1)}
    assert not ladder().promotable([*results, failed], begun, least=1)


def test_time_to_the_top_is_foreseen(make_result: MakeResult) -> None:
    assert ladder().seconds(make_result(0, seconds=1.5)) == pytest.approx(20)
    assert ladder().seconds(make_result(0, rung=1, seconds=2.0)) == pytest.approx(6)
    assert ladder().seconds_again(make_result(0, rung=2, seconds=3.0)) == pytest.approx(4)


def test_of_equally_accurate_networks_the_loss_decides(make_result: MakeResult) -> None:
    values = [(0.8, 1.0), (0.9, 0.9), (0.9, 0.5)]
    results = [
        make_result(n, accuracy=accuracy, loss=loss, macs=900)
        for n, (accuracy, loss) in enumerate(values)
    ]
    order = partial(standing, recipe=Recipe())
    assert [r.number for r in sorted(results, key=order)] == [2, 1, 0]


def test_results_may_come_one_by_one(make_result: MakeResult) -> None:
    results = [
        make_result(n, accuracy=(n * 7 % 40) / 50, macs=300 + 13 * (n % 50))
        for n in range(4 * KEEP)
    ]
    begun, growing = started(results), ladder()
    for count in range(len(results)):
        now = growing.promotable(results[:count], begun, least=1)
        assert now == ladder().promotable(results[:count], begun, least=1)
