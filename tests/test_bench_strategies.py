"""How soon strategies reach a target: whose answer is known, the script has to find."""

from __future__ import annotations

import numpy as np
import pytest
from bench_strategies import _asha_run
from reaching import Run, Trained, alone, compare, held, reach

RANDOM = np.random.default_rng(0)


def run(qualities: list[float], seconds: float, noise: float = 0.0) -> Run:
    """Trainings one after the other; validation images see the quality with noise."""
    return [
        Trained(seconds * (n + 1), quality + float(RANDOM.normal(0, noise)), quality)
        for n, quality in enumerate(qualities)
    ]


def random_runs(count: int = 3) -> list[Run]:
    return [run(list(RANDOM.normal(0.9, 0.01, 30)), 10.0) for _ in range(count)]


def test_a_run_holds_what_validation_chose_however_good_that_is() -> None:
    found = [Trained(1.0, 0.8, 0.7), Trained(2.0, 0.7, 0.9), Trained(4.0, 0.9, 0.6)]
    times = np.array([0.5, 1.0, 3.0, 4.0, 9.0])
    assert held(found, times).tolist() == [0, 0.7, 0.7, 0.6, 0.6]


def test_one_lucky_moment_of_one_run_is_not_the_target_reached() -> None:
    times = np.arange(1.0, 7.0)
    lucky = np.array([[0.5, 0.9, 0.5, 0.5, 0.5, 0.5]])
    assert reach(lucky, 0.8, times) == (6.0, False)
    assert reach(np.array([[0.5, 0.5, 0.9, 0.9, 0.9, 0.9]]), 0.8, times) == (3.0, True)


def test_trainings_of_all_runs_have_their_own_seconds() -> None:
    assert [t.spent for t in alone([run([0.9, 0.8], 3.0), run([0.7], 5.0)])] == [3, 3, 5]


def test_who_needs_a_fifth_of_the_seconds_is_five_times_as_fast() -> None:
    runs = {"random": random_runs()}
    runs["nasfuse"] = [run([0.85, 0.96], 30.0) for _ in range(3)]
    found = {row["strategy"]: row for row in compare(runs, 30, ["nasfuse"])["rows"]}
    assert found["nasfuse"]["reached"]
    assert found["nasfuse"]["CPU-seconds"] == pytest.approx(60, rel=0.03)
    ratio, low, high = found["random"]["times"]["nasfuse"]
    assert low <= ratio <= high
    assert 4 < ratio < 5.2  # 300 / 60 where each training of the 30 counts
    assert found["nasfuse"]["times"]["nasfuse"] == [1, 1, 1]


def test_who_never_reaches_the_target_counts_with_the_seconds_of_random_search() -> None:
    runs = {"random": random_runs(), "nasfuse": [run([0.85], 30.0) for _ in range(2)]}
    found = compare(runs, 30, ["nasfuse"])
    row = next(row for row in found["rows"] if row["strategy"] == "nasfuse")
    assert not row["reached"]
    assert row["CPU-seconds"] == found["seconds"] == pytest.approx(300)
    assert row["at the end"] == pytest.approx(0.85)
    assert found["target"] > 0.91
    assert row["first"] == [30, 0.85]
    assert found["random networks"] == pytest.approx([0.9, 0.01], abs=0.002)


def test_of_asha_whole_trainings_count_and_what_all_others_cost() -> None:
    frames = pytest.importorskip("pandas").DataFrame
    columns = ["training_iteration", "timestamp", "cpu", "accuracy", "judged"]
    whole = frames([[1, 10, 4.0, 0.5, 0.0], [2, 30, 9.0, 0.8, 0.7]], columns=columns)
    stopped = frames([[1, 20, 6.0, 0.4, 0.0]], columns=columns)
    assert _asha_run([stopped, whole], 2) == [Trained(15.0, 0.8, 0.7)]
