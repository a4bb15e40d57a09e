"""What the benchmark of the main job counts in a search's results."""

from __future__ import annotations

import json
from collections.abc import Callable

from bench_main_job import counts, largest

from nasfuse.recipe import Recipe
from nasfuse.results import Result


def test_full_trainings_are_neither_pauses_nor_repeats(make_result: Callable[..., Result]) -> None:
    top = Recipe().top
    results = [
        *(make_result(0, rung=rung, macs=900, thop=950) for rung in range(top + 1)),
        make_result(0, rung=top, repeat=1),
        make_result(1, macs=980, thop=970),
        make_result(1, rung=top - 1, macs=980, thop=970),
        make_result(2, status="failed", accuracy=None, cause="memory", macs=1, thop=1),
    ]
    rows = [json.loads(result.model_dump_json(exclude_none=True)) for result in results]
    assert counts(rows, top=top) == {"networks_tried": 3, "full_trainings": 1, "failed": 1}
    assert (largest(rows[:3]), largest(rows[:3] + rows[4:])) == (950, 980)
