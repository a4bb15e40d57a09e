from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from nasfuse.architecture import Architecture
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.network import cost
from nasfuse.recipe import Recipe, Rung
from nasfuse.results import Result
from nasfuse.searching.limits import Limits
from nasfuse.searching.schedule import Progress
from nasfuse.searching.study import Study
from nasfuse.searching.swapping import FixedJobs, swap_jobs, swaps_of
from nasfuse.searching.tuning import StudyStopper
from nasfuse.searching.worker import Evaluation, Job, Task
from nasfuse.swaps import ORIGINAL, Swap

MakeResult = Callable[..., Result]


@pytest.fixture
def swaps(architecture: Architecture) -> list[Swap]:
    wider = [architecture.model_copy(update={"resolution": side}) for side in (24, 32)]
    return [Swap(0, 0, "add", "concat", network) for network in wider]


@pytest.fixture
def jobs(make_result: MakeResult, architecture: Architecture, swaps: list[Swap]) -> list[Job]:
    original = make_result(5, key=architecture.key)
    return swap_jobs(original, swaps, seeds=3, top=2)


def progress(folder: Path, limits: Limits, results: list[Result]) -> Progress:
    return Progress(Study(folder, cast(Any, SimpleNamespace())), limits, results)


def done(make_result: MakeResult, job: Job, **changes: Any) -> Result:
    price = cost(job.architecture)
    costs = {"macs": price.macs, "params": price.params, "thop": price.thop}
    step = {"key": job.key, "rung": job.rung, "repeat": job.repeat, "origin": job.origin}
    return make_result(job.number, **costs, **step, **changes)


def test_the_original_is_trained_first_and_then_swap_by_swap(jobs: list[Job]) -> None:
    assert [job.repeat for job in jobs] == [1, 2, 3] * 3
    assert [job.origin == ORIGINAL for job in jobs] == [True] * 3 + [False] * 6
    assert len({job.step for job in jobs}) == 9
    assert {job.rung for job in jobs} == {2}


def test_what_has_a_result_is_not_trained_again(
    tmp_path: Path, jobs: list[Job], make_result: MakeResult
) -> None:
    results = [done(make_result, job) for job in jobs[:4]]
    work = FixedJobs(progress(tmp_path, Limits(None, None), results), jobs, workers=1)
    assert [work.next() for _ in jobs[4:]] == jobs[4:]
    assert work.next() is None
    assert work.finished


def test_nothing_is_begun_that_would_end_too_late(
    tmp_path: Path, jobs: list[Job], make_result: MakeResult
) -> None:
    slow = [done(make_result, jobs[0], seconds=50.0)]
    work = FixedJobs(progress(tmp_path, Limits(None, 20.0), slow), jobs, workers=1)
    assert work.next() is None
    assert work.finished
    quick = [done(make_result, jobs[0], seconds=5.0)]
    work = FixedJobs(progress(tmp_path, Limits(None, 20.0), quick), jobs, workers=1)
    assert work.next() == jobs[1]
    work.progress.stopping = "SIGINT"
    assert work.next() is None


def test_who_stops_the_study_stops_its_swaps(tmp_path: Path) -> None:
    study = Study(tmp_path, cast(Any, SimpleNamespace()))
    going = Progress(swaps_of(study), Limits(None, None), [], part_of=study)
    stopper = StudyStopper(going)
    assert not stopper.stop_all()
    assert going.stopping is None
    study.ask_to_stop()
    assert not stopper.stop_all()
    assert going.stopping == "nasfuse stop"


def test_weights_of_swaps_are_not_kept(tmp_path: Path, dataset: Dataset, jobs: list[Job]) -> None:
    rungs = (Rung(share=0.5, epochs=1), Rung(share=1.0, epochs=1))
    recipe = Recipe(batch=16, rungs=rungs)
    task = Task(tmp_path, dataset, measure(dataset.train), recipe, seed=3)
    for paired in (True, False):
        evaluation = Evaluation(replace(task, paired=paired), replace(jobs[0], rung=1))
        while not evaluation.done:
            evaluation.epoch()
        kept = evaluation.finish().weights_sha256 is not None
        assert kept is bool(list(tmp_path.glob("*/*.safetensors"))) is not paired


def test_paired_networks_have_the_same_seeds(
    tmp_path: Path, dataset: Dataset, jobs: list[Job]
) -> None:
    rungs = (Rung(share=0.5, epochs=1), Rung(share=1.0, epochs=1))
    recipe = Recipe(batch=16, rungs=rungs)
    task = Task(tmp_path, dataset, measure(dataset.train), recipe, seed=3, paired=True)
    seeds = []
    for job in (jobs[0], jobs[3], jobs[4]):
        Evaluation(task, replace(job, rung=1))
        seeds.append(torch.initial_seed())
    assert seeds[0] == seeds[1] != seeds[2]
    Evaluation(replace(task, paired=False), replace(jobs[0], rung=1))
    assert torch.initial_seed() not in seeds
