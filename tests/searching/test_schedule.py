from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nasfuse.finals import finalists, verdict
from nasfuse.recipe import Recipe
from nasfuse.results import MAX_FAILURES_IN_A_ROW, Result
from nasfuse.searching.limits import Limits
from nasfuse.searching.promise import promise
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.running import _results_so_far
from nasfuse.searching.schedule import Progress, Schedule
from nasfuse.searching.storage import Storage
from nasfuse.searching.study import Settings, Study
from nasfuse.searching.worker import Job
from nasfuse.space import read_space

MakeResult = Callable[..., Result]
BUDGET = 1_000_000


def schedule(tmp_path: Path, limits: Limits) -> Schedule:
    settings = Settings(
        id="0123456789abcdef",
        name="a",
        space_name="default",
        space=read_space("default"),
        budget=BUDGET,
        data="sample",
        side=64,
        validation=2000,
        fingerprint="0" * 12,
        classes=("a", "b", "c"),
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        sampler="random",
        seed=3,
        tracking_uri=None,
        versions={},
    )
    folder = tmp_path / "a"
    study = Study.open(folder) if folder.exists() else Study.create(folder, settings)
    proposer = Proposer(
        Storage(folder / "study.db"),
        settings.search_space,
        budget=BUDGET,
        sampler="random",
        seed=3,
    )
    return Schedule(Progress(study, limits, study.recover()), proposer, workers=2)


def finish(planned: Schedule, job: Job, make_result: MakeResult, *, seconds: float = 1.0) -> None:
    """As if the job had been trained; later proposals are better."""
    result = make_result(
        job.number,
        key=job.key,
        rung=job.rung,
        repeat=job.repeat,
        origin=job.origin,
        architecture=job.architecture,
        accuracy=0.5 + job.number / 1000,
        seconds=seconds,
    )
    planned.progress.study.record(result)
    planned.progress.results.append(result)
    if job.rung == 0:
        planned.proposer.tell(job.number, value=result.accuracy, cost=result.cost)


def run(planned: Schedule, make_result: MakeResult, *, jobs: int = 1000) -> list[Job]:
    done: list[Job] = []
    while len(done) < jobs and (job := planned.next()) is not None:
        finish(planned, job, make_result)
        done.append(job)
    return done


def test_the_sampler_hears_what_a_short_run_lets_expect(
    tmp_path: Path, make_result: MakeResult
) -> None:
    planned = schedule(tmp_path, Limits(1, None))
    job = planned.next()
    assert job is not None
    small = job.architecture.model_copy(update={"resolution": 16})
    result = make_result(job.number, key=job.key, architecture=small, accuracy=0.8)
    planned.take(result)
    kept = planned.proposer.kept.all()[job.number]
    assert kept.values == [promise(result, planned.ladder.recipe), result.cost]
    assert kept.values[0] < 0.8


def test_as_many_networks_as_asked_and_the_best_to_the_top(
    tmp_path: Path, make_result: MakeResult
) -> None:
    planned = schedule(tmp_path, Limits(12, None))
    done = run(planned, make_result)
    assert sum(job.rung == 0 for job in done) == 12
    assert 1 <= sum(job.rung == 1 for job in done) <= 12
    assert planned.finished
    assert len({job.step for job in done}) == len(done)


def test_a_resumed_schedule_repeats_and_forgets_nothing(
    tmp_path: Path, make_result: MakeResult
) -> None:
    first = schedule(tmp_path, Limits(10, None))
    done = run(first, make_result, jobs=4)
    lost = [first.next(), first.next()]  # handed out, and then the process died
    first.keep()
    second = schedule(tmp_path, Limits(10, None))
    assert {second.next(), second.next()} == set(lost)
    for job in lost:
        assert job is not None
        finish(second, job, make_result)
    done += [job for job in lost if job] + run(second, make_result)
    assert len({job.step for job in done}) == len(done)
    assert sum(job.rung == 0 for job in done) == 10


def test_a_result_that_optuna_was_not_told_is_told_on_resume(
    tmp_path: Path, make_result: MakeResult
) -> None:
    first = schedule(tmp_path, Limits(10, None))
    job = first.next()
    assert job is not None
    first.keep()
    first.progress.study.record(make_result(job.number, key=job.key, architecture=job.architecture))
    assert [p.number for p in first.proposer.unfinished()] == [job.number]
    second = schedule(tmp_path, Limits(10, None))
    assert second.proposer.unfinished() == []
    assert second.waiting == []


def test_the_end_of_the_time_belongs_to_promotions(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = schedule(tmp_path, Limits(None, 100.0))
    left = {"seconds": 100.0}
    monkeypatch.setattr(Progress, "left", property(lambda self: left["seconds"]))
    for _ in range(3):
        job = planned.next()
        assert job is not None
        finish(planned, job, make_result)
    left["seconds"] = 15.0
    job = planned.next()
    assert job is not None
    assert job.rung == 1
    left["seconds"] = 0.0
    monkeypatch.setattr(type(planned.ladder), "seconds", lambda self, result: 60.0)
    assert planned.next() is None, "what would take too long is not begun"
    assert planned.finished


def test_half_of_the_time_is_for_trying_networks(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would take to train the best of every band of cost."""
    planned = schedule(tmp_path, Limits(None, 100.0))
    left = {"seconds": 100.0}
    monkeypatch.setattr(Progress, "left", property(lambda self: left["seconds"]))
    for _ in range(3):
        job = planned.next()
        assert job is not None
        finish(planned, job, make_result, seconds=20.0)
    left["seconds"] = 51.0
    job = planned.next()
    assert job is not None
    assert job.rung == 0
    left["seconds"] = 49.0
    job = planned.next()
    assert job is None or job.rung > 0


def test_stopping_hands_out_nothing_more(tmp_path: Path) -> None:
    planned = schedule(tmp_path, Limits(10, None))
    planned.progress.stopping = "SIGINT"
    assert planned.next() is None
    assert planned.finished


def test_a_resumed_search_does_not_count_failures_of_the_one_before(
    tmp_path: Path, make_result: MakeResult
) -> None:
    first = schedule(tmp_path, Limits(20, None))
    assert first.next() is not None
    for number in range(8):
        failed = make_result(number, status="failed", accuracy=None, cause="a full disk")
        first.progress.study.record(failed)
        first.progress.results.append(failed)
    assert first.progress.failing
    second = schedule(tmp_path, Limits(20, None))
    assert len(second.progress.results) == 8
    assert not second.progress.failing


def test_what_failed_for_no_fault_of_its_own_is_tried_again(
    tmp_path: Path, make_result: MakeResult
) -> None:
    """Eight failures end a search; with the cause mended, the same networks come first."""
    first = schedule(tmp_path, Limits(20, None))
    failed = []
    while not first.progress.failing:
        job = first.next()
        assert job is not None
        result = make_result(
            job.number,
            key=job.key,
            origin=job.origin,
            architecture=job.architecture,
            status="failed",
            accuracy=None,
            cause="no memory",
        )
        file = first.progress.study.trial(job.key) / "rung0.json"
        file.parent.mkdir()
        file.write_text(result.model_dump_json(exclude_none=True))
        first.progress.study.record(result)
        first.progress.results.append(result)
        first.take(result)
        failed.append(job)
    first.keep()
    assert len(_results_so_far(first.progress.study)) == 0
    second = schedule(tmp_path, Limits(20, None))
    assert [second.next() for _ in failed] == failed
    assert any(job.origin == "all-add" for job in failed)


def test_failures_are_told_once_something_has_succeeded(
    tmp_path: Path, make_result: MakeResult
) -> None:
    planned = schedule(tmp_path, Limits(20, None))
    jobs = [planned.next(), planned.next()]
    for job, changes in zip(jobs, ({"status": "failed", "accuracy": None}, {}), strict=True):
        assert job is not None
        states = [trial.state.name for trial in planned.proposer.kept.all()]
        assert states == ["RUNNING", "RUNNING"]
        changes = {"cause": "a", **changes} if changes else {}
        planned.take(make_result(job.number, key=job.key, architecture=job.architecture, **changes))
    assert [t.state.name for t in planned.proposer.kept.all()] == ["FAIL", "COMPLETE"]


def test_a_search_says_why_it_tries_no_more(tmp_path: Path, make_result: MakeResult) -> None:
    planned = schedule(tmp_path, Limits(20, None))
    run(planned, make_result, jobs=3)
    planned.proposer.budget = 1
    assert planned.next() is None
    assert any(job.repeat for job in run(planned, make_result)), "what was tried has its finals"
    assert planned.finished
    assert planned.progress.notices == [planned.proposer.gave_up]
    assert "1,000 did not fit" in planned.progress.notices[0]


def test_the_best_hand_made_network_gets_a_full_training(
    tmp_path: Path, make_result: MakeResult
) -> None:
    """Or the report could not compare: it goes up though no band sends it."""
    planned = schedule(tmp_path, Limits(12, None))
    done = run(planned, make_result)
    full = [r for r in planned.progress.results if r.rung == 1]
    assert any(r.is_reference for r in full)
    assert len(done) == len(planned.progress.results)


def test_finalists_are_trained_again_at_the_end(tmp_path: Path, make_result: MakeResult) -> None:
    planned = schedule(tmp_path, Limits(32, None))  # of which more than one reaches the top
    done = run(planned, make_result)
    again = [job for job in done if job.repeat]
    assert done[-len(again) :] == again
    full = {job.key for job in done if job.rung == 2}
    assert {job.key for job in again} <= full
    assert {job.repeat for job in again} == {1, 2, 3}
    assert verdict(planned.progress.results, 2, images=1000) is not None
    assert planned.finished


def side_by_side(planned: Schedule, make_result: MakeResult, workers: int) -> list[Job]:
    """As `run`, with several workers: what costs more takes longer."""
    running, now = planned.progress.running, 0
    done: list[Job] = []
    ends: list[tuple[int, Job]] = []
    while True:
        while len(running) < workers and (job := planned.next()):
            running[str(len(done) + len(running))] = (job, 0, 0.0)
            longer = 2000 - job.number  # the best of all are the last to reach the top
            ends.append((now + longer * (10 if job.rung else 1), job))
        if not ends:
            return done
        ends.sort(key=lambda end: end[0])
        now, job = ends.pop(0)
        del running[next(name for name, (other, *_) in running.items() if other is job)]
        finish(planned, job, make_result)
        done.append(job)


@pytest.mark.parametrize("workers", [1, 2, 8, 16])
def test_nobody_is_trained_again_who_may_be_displaced(
    tmp_path: Path, make_result: MakeResult, workers: int
) -> None:
    """Who goes up last is the best: finals that begin before would be in vain."""
    planned = schedule(tmp_path, Limits(24, None))
    done = side_by_side(planned, make_result, workers)
    top = planned.ladder.recipe.top
    assert {j.key for j in done if j.repeat} == {
        result.key for result in finalists(planned.progress.results, top)
    }
    assert planned.finished


def test_finals_have_no_more_than_their_share_of_the_time(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = schedule(tmp_path, Limits(None, 100.0))
    left = {"seconds": 100.0}
    monkeypatch.setattr(Progress, "left", property(lambda self: left["seconds"]))
    for _ in range(12):
        job = planned.next()
        assert job is not None
        finish(planned, job, make_result)
    left["seconds"] = 15.0
    job = planned.next()
    while job is not None and not job.repeat:
        finish(planned, job, make_result)
        job = planned.next()
    assert job is not None, "finals come before the next best are brought to the top"
    left["seconds"] = 0.0
    monkeypatch.setattr(type(planned.ladder), "seconds_again", lambda self, result: 60.0)
    assert not planned._finals()


def test_failures_in_a_row_are_noticed(tmp_path: Path, make_result: MakeResult) -> None:
    progress = schedule(tmp_path, Limits(10, None)).progress
    failures = [
        make_result(n, status="failed", accuracy=None, loss=None, cause="x")
        for n in range(MAX_FAILURES_IN_A_ROW)
    ]
    progress.results = [*failures[1:], make_result(99)]
    assert not progress.failing
    progress.results = failures
    assert progress.failing
    progress.results = [one.model_copy(update={"too_slow": True}) for one in failures]
    assert not progress.failing


def test_the_same_seed_and_results_give_the_same_search(
    tmp_path: Path, make_result: MakeResult
) -> None:
    """With one worker nothing depends on who ends first."""
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(run(schedule(tmp_path / name, Limits(20, None)), make_result))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("days", [1, -1])
def test_a_wall_clock_that_jumps_moves_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    planned = schedule(tmp_path, Limits(None, 600.0))
    before, wall = planned.progress.left, time.time
    monkeypatch.setattr(time, "time", lambda: wall() + days * 86400)
    left = planned.progress.left
    assert before is not None
    assert left is not None
    assert 0 <= before - left < 300
    assert planned.progress.room > 300
    assert planned.next() is not None
