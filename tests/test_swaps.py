"""Swaps: one place changed at the same cost, tried in a sensible order, judged with care."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nasfuse.agreement import packed
from nasfuse.effects import Effect
from nasfuse.errors import BudgetError
from nasfuse.fusion_map import Cell, FusionMap
from nasfuse.fusion_words import Swapped, swap_sentences
from nasfuse.network import cost
from nasfuse.results import Result
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space, space_names
from nasfuse.swaps import ORIGINAL, Swap, compare, find_swaps, ordered

MakeResult = Callable[..., Result]
BUDGET = 30_000_000


def fusions_of(swap: Swap, count: int) -> list[str]:
    """The kinds at every skip of every stage, and the neck's."""
    stages = swap.architecture.stages
    assert len(stages) == count
    joined = getattr(swap.architecture.neck, "fusion", None)
    return [f.kind for stage in stages for f in stage.fusion] + [joined.kind if joined else ""]


@pytest.mark.parametrize("name", space_names())
def test_a_swap_changes_one_place_and_not_the_cost(name: str) -> None:
    space = load_space(name)
    for seed in range(6):
        candidate = space.sample(seed)
        try:
            original = fit_to_budget(candidate.architecture, candidate.scaling, BUDGET)
        except BudgetError:
            continue
        whole, limit = Swap(0, 0, "", "", original), cost(original).larger
        before = fusions_of(whole, len(original.stages))
        swaps = find_swaps(original, space)
        assert swaps or not original.fusions
        assert len({swap.text for swap in swaps}) == len(swaps)
        assert original.key not in {swap.architecture.key for swap in swaps}
        for swap in swaps:
            assert 0.85 * limit <= cost(swap.architecture).larger <= limit
            assert swap.architecture.resolution == original.resolution
            after = fusions_of(swap, len(original.stages))
            changed = {(a, b) for a, b in zip(before, after, strict=True) if a != b}
            assert changed == {(swap.old, swap.new)} or name == "densenet"


def test_a_whole_stage_is_swapped_where_the_space_has_one_choice_for_it() -> None:
    space = load_space("densenet")
    original = space.sample(0).architecture
    places = {swap.place for swap in find_swaps(original, space)}
    assert places == {"stages.0.fusion", "stages.1.fusion", "stages.2.fusion"}


def test_a_neck_is_swapped_too() -> None:
    space = load_space("multiscale")
    seeds = (s for s in range(100) if getattr(space.sample(s).architecture.neck, "fusion", None))
    original = space.sample(next(seeds)).architecture
    assert "neck.fusion" in {swap.place for swap in find_swaps(original, space)}


def some_swaps() -> list[Swap]:
    space = load_space("default")
    candidate = space.sample(1)
    original = fit_to_budget(candidate.architecture, candidate.scaling, 2_000_000)
    return find_swaps(original, space)


def test_every_place_comes_before_a_second_at_any() -> None:
    swaps = some_swaps()
    places = {swap.place for swap in swaps}
    found = FusionMap(0, 0, (), (), None, 0, (), 0)
    asked = ordered(swaps, found)
    assert {swap.place for swap in asked[: len(places)]} == places
    assert sorted(s.text for s in asked) == sorted(s.text for s in swaps)
    assert asked == ordered(swaps, found)


def test_the_unknown_comes_first_and_then_what_may_be_best() -> None:
    place = "all skips"
    known = {"add": 0.01, "concat": 0.03, "multiply": 0.02, "gated": 0.005, "concat_conv": 0.001}
    cells = tuple(
        Cell(place, fusion, 9, 0, Effect(0.0, -high, high, 0.5)) for fusion, high in known.items()
    )
    asked = ordered(some_swaps(), FusionMap(50, 3, (), cells, place, 5, (), 0))
    for at in {swap.place for swap in asked}:
        new = [swap.new for swap in asked if swap.place == at]
        assert new == sorted(new, key=lambda fusion: -known.get(fusion, 1.0))


def trained(
    make_result: MakeResult, swap: Swap | None, accuracies: dict[int, float]
) -> list[Result]:
    """Repeats of a swap, or of the original."""
    key = swap.architecture.key if swap else "0" * 12
    origin = swap.text if swap else ORIGINAL
    return [
        make_result(7, key=key, origin=origin, rung=2, repeat=seed, accuracy=accuracy)
        for seed, accuracy in accuracies.items()
    ]


def test_pairs_are_of_one_seed(make_result: MakeResult) -> None:
    first, second, third, *_ = some_swaps()
    results = [
        *trained(make_result, None, {1: 0.80, 2: 0.84, 3: 0.82, 4: 0.81}),
        *trained(make_result, first, {1: 0.83, 2: 0.871, 3: 0.849, 4: 0.84}),
        *trained(make_result, second, {2: 0.85, 3: 0.815}),
        *trained(make_result, third, {9: 0.99}),
    ]
    found = compare("0" * 12, some_swaps(), results, validation=10**9)
    assert [one.seeds for one in found] == [4, 2, 0]
    assert found[0].effect is not None
    assert found[0].effect.estimate == pytest.approx(0.03)
    assert found[0].judgement == f"{first.new} is better"
    assert found[1].judgement == "not shown"
    assert found[2].judgement == "too few seeds"
    said = " ".join(swap_sentences(Swapped(results[0], found)))
    assert f"{first.place} wants {first.new} instead of {first.old}" in said
    assert "2 comparisons" in said


def test_equal_networks_are_hardly_ever_told_apart(make_result: MakeResult) -> None:
    """Eight swaps that change nothing: in one study in twenty one of them may seem to."""
    swaps = some_swaps()[:8]
    generator, runs = np.random.default_rng(0), 200
    declared = 0
    held = tests = 0
    for _ in range(runs):
        draws = np.round(generator.normal(0.88, 0.002, (9, 5)) * 2000) / 2000
        results = []
        for network, row in zip([None, *swaps], draws, strict=True):
            results += trained(make_result, network, dict(enumerate(map(float, row), 1)))
        found = compare("0" * 12, swaps, results, validation=10**9)
        declared += any(one.judgement.endswith("is better") for one in found)
        held += sum(one.effect.low <= 0 <= one.effect.high for one in found if one.effect)
        tests += len(found)
    assert declared <= 0.05 * runs + 2 * np.sqrt(0.05 * runs)
    assert 0.93 <= held / tests <= 0.975


def test_what_is_chance_of_the_images_shows_no_difference(make_result: MakeResult) -> None:
    """A swap that is right on other images, by as many more in every training."""
    swap, images = some_swaps()[0], 400
    answers = np.ones((2, images), dtype=bool)
    answers[0, :42], answers[1, 30:60] = False, False
    for known in (True, False):
        results = [
            make_result(
                7,
                key=key,
                rung=2,
                repeat=repeat,
                accuracy=float(right.mean()),
                right=packed(np.packbits(right).tobytes()) if known else None,
            )
            for key, right in zip(("0" * 12, swap.architecture.key), answers, strict=True)
            for repeat in range(1, 6)
        ]
        [found] = compare("0" * 12, [swap], results, validation=images)
        assert found.effect is not None
        assert found.effect.estimate == pytest.approx(0.03)
        assert found.judgement == "not shown"
        if not known:  # 2.776 is Student's t for five seeds
            error = np.sqrt((0.895 * 0.105 + 0.925 * 0.075) / images)
            assert found.effect.high == pytest.approx(0.03 + 2.776 * error, rel=0.01)


def test_a_failed_training_is_no_accuracy(make_result: MakeResult) -> None:
    swap = some_swaps()[0]
    failed = make_result(
        7, key=swap.architecture.key, rung=2, repeat=1, status="failed", accuracy=None, cause="x"
    )
    results = [*trained(make_result, None, {1: 0.8, 2: 0.8}), failed]
    found = compare("0" * 12, some_swaps(), results, validation=2000)
    assert [(one.seeds, one.judgement) for one in found] == [(0, "too few seeds")]
