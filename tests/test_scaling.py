from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import bench_cost
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasfuse.architecture import Architecture, Scaling, parse_architecture
from nasfuse.errors import BudgetError
from nasfuse.network import cost, thop_macs
from nasfuse.scaling import channel_multiple, fit_to_budget, round_finely, round_width, scale
from nasfuse.space import load_space, space_names

SPACE = load_space("default").for_images(channels=1, classes=10)


SMALL = (1_000_000, 10_000_000, 50_000_000, 400_000_000)
FITS = [(name, budget) for name in space_names() if name != "mobile" for budget in SMALL]
FITS += [("mobile", 400_000_000), ("mobile", 600_000_000)]


@pytest.mark.parametrize(("name", "budget"), FITS)
def test_candidates_fill_the_budget_and_never_pass_it(name: str, budget: int) -> None:
    used, smallest, space = [], [], load_space(name)
    for seed in range(40):
        candidate = space.sample(seed)
        try:
            network = fit_to_budget(candidate.architecture, candidate.scaling, budget)
        except BudgetError as error:
            smallest.append(error.needed)
            continue
        price = cost(network)
        assert price.macs <= budget
        assert price.thop <= budget
        used.append(price.larger / budget)
    used.sort()
    assert all(needed > budget for needed in smallest)
    assert len(used) >= 20
    assert used[len(used) // 2] >= 0.97
    assert used[len(used) // 20] >= 0.90


def test_the_benchmark_has_fitted_networks_counted_by_torch_and_thop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_cost, "FITS", {"default": (1_000_000,)})

    def counted() -> tuple[int, int]:
        [row] = bench_cost.fits(4)
        return row["counted by torch and thop"], row["largest difference"]

    assert counted() == (3, 0)
    counter = thop_macs
    monkeypatch.setattr(bench_cost, "thop_macs", lambda network: counter(network) + 7)
    assert counted() == (3, 7)


def test_parameters_may_be_limited_as_well() -> None:
    space = load_space("default").for_images(channels=1, classes=10)
    budget, limit, binding = 20_000_000, 100_000, 0
    for seed in range(20):
        candidate = space.sample(seed)
        free = fit_to_budget(candidate.architecture, candidate.scaling, budget)
        network = fit_to_budget(candidate.architecture, candidate.scaling, budget, limit)
        price = cost(network)
        assert price.larger <= budget
        assert price.params <= limit
        if cost(free).params > limit:
            binding += 1
            assert price.params > 0.8 * limit
        else:
            assert network == free
    assert binding > 5
    with pytest.raises(BudgetError, match="100 parameters") as caught:
        fit_to_budget(candidate.architecture, candidate.scaling, budget, 100)
    assert caught.value.fix.startswith("--max-params ")
    enough = int(caught.value.fix.split()[1])
    assert cost(fit_to_budget(candidate.architecture, ALIKE, budget, enough)).params <= enough
    with pytest.raises(BudgetError) as caught:
        fit_to_budget(candidate.architecture, candidate.scaling, 10, enough - 1)
    assert "--budget" in caught.value.fix
    assert f"--max-params {enough}" in caught.value.fix


def test_fitted_networks_are_sound_documents() -> None:
    for seed in range(40):
        candidate = SPACE.sample(seed)
        network = fit_to_budget(candidate.architecture, candidate.scaling, 2_000_000)
        assert parse_architecture(network.document(), where="") == network
        kept = {fusion for stage in network.stages for fusion in stage.fusion}
        assert kept <= {f for stage in candidate.architecture.stages for f in stage.fusion}


def test_a_budget_that_cannot_be_met_says_what_would_do() -> None:
    candidate = SPACE.sample(0)
    with pytest.raises(BudgetError) as caught:
        fit_to_budget(candidate.architecture, candidate.scaling, 10)
    fitted = fit_to_budget(candidate.architecture, candidate.scaling, caught.value.needed)
    assert cost(fitted).larger == caught.value.needed


@given(st.integers(0, 500), st.floats(-6, 6), st.floats(0, 3))
def test_cost_grows_with_the_coefficient(seed: int, phi: float, more: float) -> None:
    candidate = SPACE.sample(seed)

    def price(at: float) -> int:
        depth, width, resolution = candidate.scaling.at(at)
        scaled = scale(candidate.architecture, depth=depth, width=width, resolution=resolution)
        return cost(scaled).macs

    assert price(phi) <= price(phi + more)


def test_coefficient_counts_doublings() -> None:
    depth, width, resolution = Scaling(alpha=1.2, beta=1.1, gamma=1.15).at(3)
    assert depth * width**2 * resolution**2 == pytest.approx(8)


@pytest.mark.parametrize(
    ("width", "rounded"),
    # EfficientNet's channels at width 1.1, 1.2, 1.4 and 2.0 (B2 to B7)
    [(35.2, 32), (44, 48), (88, 88), (123.2, 120), (211.2, 208), (352, 352), (44.8, 48), (56, 56)],
)
def test_widths_round_as_published(width: float, rounded: int) -> None:
    assert round_width(width) == rounded


RESIDUAL = {"kind": "residual", "kernel": 3}
ALIKE = Scaling(alpha=1.2, beta=1.2, gamma=1.1)


def stage(width: int, block: dict[str, Any] = RESIDUAL, **others: Any) -> dict[str, Any]:
    return {"depth": 1, "stride": 1, "block": block, "fusion": "add", "width": width, **others}


def made(*stages: dict[str, Any], **others: Any) -> Architecture:
    document = {
        "resolution": 16,
        "channels": 1,
        "classes": 2,
        "activation": "relu",
        "stem": {"width": 16, "kernel": 3, "stride": 1},
        "stages": stages,
        "head": {"kind": "norm"},
    }
    return parse_architecture(document | others, where="")


def fits(network: Architecture) -> Iterator[Architecture]:
    """What a network becomes for each of 80 budgets, where it can meet them."""
    for n in range(80):
        with suppress(BudgetError):
            yield fit_to_budget(network, ALIKE, int(100_000 * 1.1**n))


EIGHT = {"kind": "bottleneck", "kernel": 3, "inner": 1.0, "groups": 8}
PICKY = {
    "padded": made(*(stage(width, shortcut="padded") for width in (24, 24, 64))),
    "padded in a cross stage": made(
        stage(40, shortcut="padded", cross={"expand": 80, "output": 32})
    ),
    "groups of a cross stage": made(
        stage(16), stage(32, EIGHT, stride=2, cross={"expand": 64, "output": 32})
    ),
}


@pytest.mark.parametrize("network", PICKY.values(), ids=PICKY.keys())
def test_widths_that_depend_on_each_other_do_so_when_fitted(network: Architecture) -> None:
    """Although each is rounded by itself, and by itself takes up what is left of a budget."""
    found = list(fits(network))
    assert len(found) > 65
    for fitted in found:
        assert parse_architecture(fitted.document(), where="") == fitted


def test_no_budget_is_refused_because_rounding_twice_makes_groups_wider() -> None:
    sixes = {"kind": "bottleneck", "kernel": 3, "inner": 1.0, "group_width": 6}
    for width in (18, 30, 42):
        found = list(fits(made(stage(width, sixes), stage(2 * width, sixes))))
        assert len(found) > 70


@pytest.mark.parametrize(
    ("inner", "groups", "multiple"),
    [
        *((0.5, 32, 64), (0.25, 4, 16), (1.5, 2, 4), (2.0, 32, 16), (0.7, 1, 1)),
        *((0.3, 4, 40), (0.15, 2, 40), (0.05, 2, 40), (0.33, 2, 200), (0.333, 4, 12)),
    ],
)
def test_groups_divide_every_width_of_a_multiple(inner: float, groups: int, multiple: int) -> None:
    block = {"kind": "bottleneck", "kernel": 3, "inner": inner, "groups": groups}
    one = made(stage(multiple, block)).stages[0]
    assert channel_multiple(one) == multiple
    for width in range(multiple, 1000, multiple):
        made(stage(width, block))


def test_what_is_above_the_ends_of_scaling_stays_there() -> None:
    large = made(stage(3000, depth=48), resolution=1200)
    for factor in (1.0, 1.5):
        scaled = scale(
            large, depth=factor, width=factor, resolution=factor, rounding=round_finely, widest=2048
        )
        assert (scaled.stages[0].depth, scaled.stages[0].width) == (48, 3000)
        assert scaled.resolution == 1200
    fitted = fit_to_budget(large, ALIKE, cost(large).larger)
    assert (fitted.stages[0].depth, fitted.stages[0].width) == (48, 3000)


def test_deeper_stages_repeat_their_fusions_in_order() -> None:
    network = made(stage(16, depth=2, fusion=["add", "multiply"]))
    assert scale(network, depth=2).fusions == ("add", "add", "multiply", "multiply")
    assert scale(network, depth=0.3).fusions == ("add",)
