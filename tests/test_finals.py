from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import tukey_hsd

from nasfuse.agreement import packed
from nasfuse.finals import CONFIDENCE, FINALISTS, REPEATS, finalists, verdict
from nasfuse.results import Result
from nasfuse.summary import verdict_sentences

MakeResult = Callable[..., Result]
TOP, IMAGES = 2, 10**9  # so many that only seeds leave anything to chance
FEW = 1000


def study(make_result: MakeResult, repeats: Mapping[int, Sequence[float]]) -> list[Result]:
    """Networks by number, each dearer than the one before, with the accuracies of their repeats."""
    results = []
    for number, accuracies in repeats.items():
        for repeat, accuracy in enumerate((0.9, *accuracies)):
            one = make_result(
                number, rung=TOP, repeat=repeat, accuracy=accuracy, macs=1000 * (number + 1)
            )
            results.append(one)
    return results


def test_the_best_and_the_best_hand_made_network_are_finalists(make_result: MakeResult) -> None:
    found = [make_result(n, rung=TOP, accuracy=0.5 + n / 100) for n in range(6)]
    hand_made = [
        make_result(10 + n, rung=TOP, origin="all-add", accuracy=0.2 + n / 100) for n in range(2)
    ]
    lower = [make_result(20, rung=1, accuracy=0.99)]
    repeats = [make_result(1, rung=TOP, repeat=1, accuracy=0.98)]
    chosen = finalists([*found, *hand_made, *lower, *repeats], TOP)
    assert [r.number for r in chosen] == [5, 4, 3, 11]
    best = make_result(30, rung=TOP, origin="all-add", accuracy=0.95)
    assert len(finalists([*found, best], TOP)) == FINALISTS


def test_a_clear_winner_is_named(make_result: MakeResult) -> None:
    found = verdict(
        study(make_result, {0: (0.80, 0.801, 0.802), 1: (0.90, 0.901, 0.902)}), TOP, images=IMAGES
    )
    assert found is not None
    assert found.clear
    assert found.best.result.number == 1
    assert found.best.mean == pytest.approx(0.901)
    assert found.margins[1][1] == pytest.approx(0.1)


def test_a_tie_goes_to_the_cheaper(make_result: MakeResult) -> None:
    repeats = {0: (0.90, 0.90, 0.91), 1: (0.91, 0.90, 0.91), 2: (0.50, 0.51, 0.50)}
    found = verdict(study(make_result, repeats), TOP, images=IMAGES)
    assert found is not None
    assert not found.clear
    assert {f.result.number for f in found.tied} == {0, 1}
    assert found.finalists[0].result.number == 1
    assert found.best.result.number == 0


def test_of_few_images_equal_repeats_are_no_certainty(make_result: MakeResult) -> None:
    results = study(make_result, {0: (0.975, 0.975, 0.975), 1: (1.0, 1.0, 1.0)})
    found = verdict(results, TOP, images=40)
    assert found is not None
    low, middle, high = found.margins[1]
    assert middle == pytest.approx(0.025)
    assert low < middle - 0.01 < middle + 0.01 < high


def test_a_tie_goes_to_the_cheaper_by_what_counts_as_cost(make_result: MakeResult) -> None:
    results = [
        make_result(n, rung=TOP, repeat=r, accuracy=0.9 + r / 1000, objective="params", **costs)
        for n, costs in enumerate(({"macs": 1, "params": 9}, {"macs": 2, "params": 5}))
        for r in range(4)
    ]
    found = verdict(results, TOP, images=IMAGES)
    assert found is not None
    assert found.best.result.params == 5


def test_without_repeats_there_is_no_verdict(make_result: MakeResult) -> None:
    assert (
        verdict(study(make_result, {0: (), 1: (0.9,), 2: (0.9, 0.8)}), TOP, images=IMAGES) is None
    )


def test_the_first_training_does_not_count(make_result: MakeResult) -> None:
    found = verdict(study(make_result, {0: (0.5, 0.6), 1: (0.5, 0.7)}), TOP, images=IMAGES)
    assert found is not None
    assert [f.mean for f in found.finalists] == pytest.approx([0.6, 0.55])


def test_intervals_are_tukeys(make_result: MakeResult) -> None:
    draws = np.random.default_rng(1).normal(0.9, 0.01, (4, REPEATS))
    found = verdict(
        study(make_result, {n: list(map(float, d)) for n, d in enumerate(draws)}),
        TOP,
        images=IMAGES,
    )
    assert found is not None
    expected = tukey_hsd(*(f.accuracies for f in found.finalists)).confidence_interval(CONFIDENCE)
    for i, (low, _, high) in enumerate(found.margins[1:], 1):
        assert low == pytest.approx(expected.low[0][i], abs=1e-4)
        assert high == pytest.approx(expected.high[0][i], abs=1e-4)


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ({0: (0.80, 0.801, 0.802), 1: (0.90, 0.901, 0.902)}, "Trial 1 beats the best hand-made"),
        ({0: (0.90, 0.901, 0.902), 1: (0.80, 0.801, 0.802)}, "does not beat the best hand-made"),
        ({0: (0.90, 0.92, 0.91), 1: (0.91, 0.92, 0.91)}, "does not beat the best hand-made"),
        ({2: (0.90, 0.92, 0.91), 1: (0.91, 0.92, 0.91)}, "Trial 1 is not shown to be more"),
    ],
)
def test_the_winner_is_compared_with_the_best_hand_made_network(
    make_result: MakeResult, accuracies: dict[int, tuple[float, ...]], said: str
) -> None:
    """Even numbers are hand-made; of those that are tied the cheaper one is taken."""
    results = [
        r.model_copy(update={"origin": "all-add"}) if r.number % 2 == 0 else r
        for r in study(make_result, accuracies)
    ]
    lines = verdict_sentences(verdict(results, TOP, images=IMAGES))
    sentence = next(line for line in lines if "hand-made" in line)
    assert said in sentence
    assert "all-add" in sentence
    assert re.search(r"[+-]\d+\.\d\d points \([+-]\d+\.\d\d to [+-]\d+\.\d\d\)", sentence)


@pytest.mark.parametrize("networks", [2, 4])
def test_of_equal_networks_hardly_ever_one_wins(make_result: MakeResult, networks: int) -> None:
    """An A/A test: the same fusions under other names, chosen by a lucky first training."""
    generator, runs, declared = np.random.default_rng(0), 1000, 0
    for _ in range(runs):
        draws = generator.normal(0.9, 0.002, (networks, REPEATS))
        repeats = {n: list(map(float, accuracies)) for n, accuracies in enumerate(draws)}
        found = verdict(study(make_result, repeats), TOP, images=IMAGES)
        declared += found is not None and found.clear
    assert declared <= 0.065 * runs  # 5 %, and two standard errors


def answered(
    make_result: MakeResult, generator: np.random.Generator, *, networks: int, worse: float
) -> list[Result]:
    """Repeats on FEW images, each network good at others; all but the first are worse."""
    results = []
    for number in range(networks):
        expected = 0.9 - (worse if number else 0.0)
        sure = generator.random(FEW) < expected  # the same ones whatever the seed
        for repeat in range(REPEATS + 1):
            other = generator.random(FEW) < 0.02
            right = np.where(other, generator.random(FEW) < expected, sure)
            one = make_result(
                number,
                rung=TOP,
                repeat=repeat,
                accuracy=float(right.mean()),
                right=packed(np.packbits(right).tobytes()) if repeat else None,
            )
            results.append(one)
    return results


@pytest.mark.parametrize("networks", [2, 4])
def test_what_is_chance_of_the_images_makes_no_winner(
    make_result: MakeResult, networks: int
) -> None:
    """Other images would give another order, though all seeds agree on these."""
    generator, runs, declared, differing = np.random.default_rng(0), 300, 0, 0
    for _ in range(runs):
        results = answered(make_result, generator, networks=networks, worse=0.0)
        found = verdict(results, TOP, images=FEW)
        assert found is not None
        declared += any(low > 0 for low, _, _ in found.margins)
        differing += found.margins[-1][1] > 3 * found.finalists[0].deviation
    assert declared <= 0.075 * runs  # 5 %, and two standard errors
    assert differing > 0.2 * runs, "seeds alone would have seen a difference"


def test_a_large_difference_is_shown_on_few_images_too(make_result: MakeResult) -> None:
    results = answered(make_result, np.random.default_rng(0), networks=3, worse=0.15)
    found = verdict(results, TOP, images=FEW)
    assert found is not None
    assert found.clear
