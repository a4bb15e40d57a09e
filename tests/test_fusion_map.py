"""The map of fusions: what it counts, what it finds in made-up studies, and where it is silent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.effects import ALPHA
from nasfuse.fusion_map import LEVELS, fusion_map, place_names, shares
from nasfuse.results import Result
from nasfuse.space import load_space

MakeResult = Callable[..., Result]
SPACE = load_space("default")


def fine(stage: int, first: bool) -> str:
    return place_names(stage, first)[0]


def made_up(
    make_result: MakeResult,
    count: int,
    *,
    seed: int,
    bonus: Callable[[Architecture], float] = lambda architecture: 0.0,
    space: str = "default",
) -> list[Result]:
    """A study of random networks whose accuracy is that of their cost, a bonus, and chance."""
    drawn, loaded = random.Random(seed), load_space(space) if space != "default" else SPACE
    results = []
    for number in range(count):
        architecture = loaded.sample(1000 * seed + number).architecture
        macs = int(2 ** drawn.uniform(15, 21))
        accuracy = 0.6 + 0.03 * (math.log2(macs) - 18) + bonus(architecture) + drawn.gauss(0, 0.01)
        results.append(make_result(number, architecture=architecture, macs=macs, accuracy=accuracy))
    return results


def aff_first(architecture: Architecture) -> float:
    """Three points for AFF at the first skip of the first stage."""
    return 0.03 * shares(architecture, fine)["stages.0 first"].get("aff", 0.0)


def test_places_are_comparable_between_depths(document: dict[str, Any]) -> None:
    document["stages"][0] |= {"depth": 4, "fusion": ["aff", "add", "add", "gated"]}
    for fusion in ("aff", "add"):
        document["stages"][0]["fusion"] = [
            {"kind": "aff", "reduction": 4} if f == "aff" else f
            for f in (fusion, "add", "add", "gated")
        ]
        found = shares(parse_architecture(document, where="a test"), fine)
        assert found["stages.0 first"] == {fusion: 1.0}
        assert found["stages.0 inner"] == pytest.approx({"add": 2 / 3, "gated": 1 / 3})
        assert found["stages.1 first"] == {"concat": 1.0}
        assert "stages.1 inner" not in found


def test_a_planted_effect_is_found_and_nothing_else(make_result: MakeResult) -> None:
    found = fusion_map(made_up(make_result, 120, seed=1, bonus=aff_first))
    assert found.level == LEVELS[0]
    effect = found.find(("stages.0 first",), "aff")
    assert effect is not None
    assert effect.low < 0.03 * 5 / 6 < effect.high  # against the mean, of which it is a sixth
    assert {c.place for c in found.shown} == {"stages.0 first"}
    assert [c.fusion for c in found.shown if c.effect and c.effect.estimate > 0] == ["aff"]
    assert found.tests == len(found.estimated) >= 25


def test_where_nothing_is_true_hardly_anything_is_shown(make_result: MakeResult) -> None:
    """One family of comparisons in twenty may err, and each test in a twentieth."""
    small = below = tests = 0
    runs = 60
    for seed in range(runs):
        found = fusion_map(made_up(make_result, 50, seed=seed))
        small += bool(found.shown)
        small += any(one.adjusted < ALPHA for one in found.interactions)
        below += sum(c.effect.p < ALPHA for c in found.estimated if c.effect)
        tests += found.tests
    assert tests > 10 * runs
    assert below <= 0.065 * tests
    assert small <= 2 * (0.05 * runs + 2 * math.sqrt(0.05 * runs))


def test_an_interaction_is_found(make_result: MakeResult) -> None:
    def together(architecture: Architecture) -> float:
        found = shares(architecture, fine)
        return 0.06 * found["stages.0 first"].get("add", 0) * found["stages.2 first"].get("add", 0)

    found = fusion_map(made_up(make_result, 250, seed=4, bonus=together))
    best = found.interactions[0]
    assert {best.one, best.other} == {("stages.0 first", "add"), ("stages.2 first", "add")}
    assert best.adjusted < ALPHA
    assert best.effect.low < 0.06 < best.effect.high
    assert found.pairs >= 5


@pytest.mark.parametrize(("count", "level"), [(0, None), (12, None), (24, 2), (34, 1)])
def test_little_data_gives_coarse_effects_or_none(
    make_result: MakeResult, count: int, level: int | None
) -> None:
    found = fusion_map(made_up(make_result, count, seed=2))
    assert found.level == (None if level is None else LEVELS[level])
    assert bool(found.estimated) == (level is not None)
    assert all(cell.networks >= 5 for cell in found.estimated)
    if level == 2:
        assert {cell.place for cell in found.estimated} == {"all skips"}
        assert "all skips" not in found.places


def test_front_and_networks_are_counted(make_result: MakeResult) -> None:
    results = made_up(make_result, 30, seed=3)
    found = fusion_map(results)
    for place in ("stages.0 first", "stages.0"):
        cells = [cell for cell in found.cells if cell.place == place]
        if cells and place in found.places:
            assert sum(cell.networks for cell in cells) == 30
            assert sum(cell.front for cell in cells) == found.front
    assert found.front >= 1


def test_one_choice_for_a_stage_is_one_place(make_result: MakeResult) -> None:
    found = fusion_map(made_up(make_result, 60, seed=5, space="multiscale"))
    assert {"stages.0", "stages.3", "neck", "neck fusion"} <= set(found.places)
    assert not any(place.endswith(("first", "inner")) for place in found.places)


def test_only_the_first_rung_is_modelled(make_result: MakeResult) -> None:
    results = made_up(make_result, 60, seed=6)
    top = [r.model_copy(update={"rung": 2, "accuracy": 0.9}) for r in results[:9]]
    effects = [cell.effect for cell in fusion_map(results).cells]
    found = fusion_map([*results, *top])
    assert [cell.effect for cell in found.cells] == effects
    assert found.front == 1  # all nine are equally accurate, and one is the cheapest


def test_parameters_are_held_equal_only_where_they_are_the_objective(
    make_result: MakeResult,
) -> None:
    results = made_up(make_result, 60, seed=7)
    change = partial(Result.model_copy, update={"objective": "params"})
    drawn = random.Random(0)
    spread = [r.model_copy(update={"params": drawn.randrange(1000, 10**6)}) for r in results]
    by_macs, by_params = fusion_map(spread), fusion_map([change(r) for r in spread])
    assert [c.effect for c in by_macs.cells] != [c.effect for c in by_params.cells]
    assert [c.effect for c in by_macs.cells] == [c.effect for c in fusion_map(results).cells]
