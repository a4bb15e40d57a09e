from __future__ import annotations

import pytest

from nasfuse.costs import (
    Cost,
    Shape,
    enough_for,
    parse_budget,
    parse_count,
    parse_latency,
    show_macs,
)
from nasfuse.errors import UsageError


@pytest.mark.parametrize(
    "text", ["400MFLOPs", "400MMACs", "0.4GFLOPs", "400M", "400 mflops", "400000000FLOPs", "0.4g"]
)
def test_one_budget_in_many_words(text: str) -> None:
    assert parse_budget(text) == 400_000_000


@pytest.mark.parametrize(
    "text",
    ["", "400", "-4M", "4TFLOPs", "0M", "nanM", "4MB", "M", "1e8", "9999999999G", "9" * 400 + "M"],
)
def test_what_is_no_budget_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(UsageError, match="is not a budget") as caught:
        parse_budget(text)
    assert "FLOPs or MACs" in caught.value.why


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)
    assert Cost(5, 0, 7).larger == 7


def test_strides_round_up() -> None:
    assert Shape(3, 7, 8).strided(5, 2) == Shape(5, 4, 4)


@pytest.mark.parametrize(
    ("macs", "text"), [(385_814_752, "385.8M"), (1_814_073_344, "1.814G"), (7, "7"), (1500, "1.5K")]
)
def test_macs_for_people(macs: int, text: str) -> None:
    assert show_macs(macs) == text


@pytest.mark.parametrize(("text", "count"), [("5M", 5_000_000), ("500k", 500_000), ("12", 12)])
def test_counts_of_parameters(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(("text", "milliseconds"), [("20ms", 20), ("0.5 s", 500), ("1.5MS", 1.5)])
def test_latencies(text: str, milliseconds: float) -> None:
    assert parse_latency(text) == milliseconds


@pytest.mark.parametrize("text", ["", "0ms", "-1ms", "20", "20us"])
def test_what_is_no_latency_is_explained(text: str) -> None:
    with pytest.raises(UsageError, match="--max-latency"):
        parse_latency(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "5MFLOPs", "many", "9999999999G", "9" * 400])
def test_what_is_no_count_is_explained(text: str) -> None:
    with pytest.raises(UsageError, match="--max-params"):
        parse_count(text)


@pytest.mark.parametrize("macs", [1, 99_999, 100_001, 123_456_789, 10**13 + 1])
def test_an_offered_budget_allows_what_is_needed(macs: int) -> None:
    budget = parse_budget(enough_for(macs).removeprefix("--budget "))
    assert macs <= budget <= macs + 100_000
