from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasfuse.api import choose
from nasfuse.errors import UsageError
from nasfuse.planning import continuation, limits_of
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.schedule import Limits

MakeResult = Callable[..., Result]


class Finished:
    """A study as `choose` sees it."""

    def __init__(self, results: list[Result], folder: Path) -> None:
        self.results, self.folder = results, folder
        self.settings: Any = type("Settings", (), {"name": "a", "recipe": Recipe()})


def test_a_number_never_means_another_network_s_key(
    tmp_path: Path, make_result: MakeResult
) -> None:
    study: Any = Finished(
        [
            make_result(3, key="aaaaaaaaaaaa", rung=0, accuracy=0.5),
            make_result(1, key="3bbbbbbbbbbb", rung=1, accuracy=0.9),
            make_result(2, key="3bbbcccccccc", rung=1, accuracy=0.8),
        ],
        tmp_path,
    )
    assert choose(study, "3").number == 3
    assert choose(study, "best").number == 1
    assert choose(study, "3bbbb").number == 1
    for ambiguous in ("3b", "3bbb", "7"):
        with pytest.raises(UsageError, match="no trained network"):
            choose(study, ambiguous)


def test_the_best_is_the_cheapest_of_those_that_are_tied(
    tmp_path: Path, make_result: MakeResult
) -> None:
    repeats = {1: (0.8, 0.81), 2: (0.8, 0.82), 3: (0.2, 0.21)}
    results = [
        make_result(number, rung=2, repeat=repeat, accuracy=accuracy, macs=1000 * number)
        for number, accuracies in repeats.items()
        for repeat, accuracy in enumerate((0.9 - number / 100, *accuracies))
    ]
    study: Any = Finished(results, tmp_path)
    assert choose(study, "best").number == 1
    assert choose(study, "best").repeat == 0
    assert choose(study, "2").repeat == 0


def test_the_highest_rung_of_a_network_is_meant(tmp_path: Path, make_result: MakeResult) -> None:
    both = [make_result(3, key="a" * 12, rung=rung, accuracy=0.5) for rung in (0, 1)]
    study: Any = Finished(both, tmp_path)
    assert choose(study, "3").rung == 1


def test_a_resumed_search_takes_up_what_the_first_was_told() -> None:
    settings: Any = type(
        "Settings",
        (),
        {"trials": 9, "seconds": None, "workers": 1, "gpus_per_trial": 0.0, "ray_address": None},
    )
    resources: dict[str, Any] = {"workers": None, "gpus_per_trial": None, "ray_address": None}
    limits, found = continuation(settings, limits=Limits(None, None), **resources)
    assert (limits, found.workers) == (Limits(9, None), 1)
    limits, found = continuation(
        settings, limits=Limits(None, 60.0), workers=2, gpus_per_trial=None, ray_address=None
    )
    assert (limits, found.workers) == (Limits(None, 60.0), 2)
    assert limits_of(None, None) == Limits(None, 420.0)
