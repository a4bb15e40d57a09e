from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyarrow.fs import LocalFileSystem
from ray.tune.experiment.trial import Trial, _TrainingRunMetadata
from ray.tune.utils import flatten_dict

from nasfuse.architecture import Architecture
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.errors import SetupError, StorageError
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.swapping import FixedJobs
from nasfuse.searching.thrift import Forgetting
from nasfuse.searching.trainable import Worker
from nasfuse.searching.tuning import JobSearcher
from nasfuse.searching.watchdog import Watchdog
from nasfuse.searching.worker import Clock, Job, Task, result_path


def test_a_full_disk_fails_no_network_but_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(worker: Worker) -> dict[str, Any]:
        raise StorageError("the disk is full", where="trials/1", why="needs 2 MB", fix="make room")

    monkeypatch.setattr(Worker, "_step", full)
    worker = object.__new__(Worker)
    worker.unfit = None
    broken = heard_by_the_driver(worker.step())
    assert isinstance(broken, StorageError)
    assert (broken.where, broken.exit_code) == ("trials/1", 8)


def test_a_worker_that_cannot_begin_fails_no_network_but_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: Dataset, architecture: Architecture
) -> None:
    def occupied() -> None:
        raise RuntimeError("CUDA error: all devices are busy")

    monkeypatch.setattr("nasfuse.searching.trainable.reserve_memory", occupied)
    worker = object.__new__(Worker)
    task = Task(tmp_path, dataset, measure(dataset.train), Recipe(), seed=0)
    worker.setup({"job": Job(3, "guided", 0, architecture).to_config()}, task)
    gc.unfreeze()
    broken = heard_by_the_driver(worker.step())
    assert isinstance(broken, SetupError)
    assert "all devices are busy" in broken.why


def heard_by_the_driver(reported: dict[str, Any]) -> Exception | None:
    """What ends a search after this report of a worker, as Ray hands it on: without parts."""
    running = {"a": ("job", 0, 0.0)}
    progress = SimpleNamespace(running=running, broken=None, notices=[], results=[])
    jobs = FixedJobs(cast("Any", progress), [], workers=1)
    searcher = JobSearcher(jobs, cast("Any", None), lambda _: None)
    assert reported["done"]
    assert "result" not in reported
    searcher.on_trial_complete("a", flatten_dict(reported))
    assert not progress.running
    found: Exception | None = progress.broken
    return found


def test_what_is_begun_goes_to_the_disk_while_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    progress = SimpleNamespace(
        running={}, broken=None, notices=[], results=[], stopping=None, room=60.0
    )
    jobs = [Job(number, "guided", 0, architecture) for number in range(2)]
    work = FixedJobs(cast("Any", progress), jobs, workers=2)
    kept: list[int] = []
    monkeypatch.setattr(work, "keep", lambda: kept.append(len(progress.running)))
    now = [1000.0]
    monkeypatch.setattr("nasfuse.searching.tuning.time", SimpleNamespace(monotonic=lambda: now[0]))
    searcher = JobSearcher(work, cast("Any", None), lambda _: None)
    for name in ("a", "b"):
        assert isinstance(searcher.suggest(name), dict)
    assert searcher.suggest("c") is None
    assert not kept, "Ray is still sending the last one to its worker"
    now[0] += 1
    assert searcher.suggest("c") is None
    assert kept == [2]
    searcher.on_trial_complete("a", {"refused": '{"kind": "StorageError", "told": {"what": "?"}}'})
    assert isinstance(progress.broken, StorageError)
    assert kept == [2], "what was refused has no result"


def test_a_result_has_the_number_of_its_job(
    tmp_path: Path, dataset: Dataset, make_result: Callable[..., Result]
) -> None:
    """A worker that outlived a killed search may have had the network under another number."""
    earlier = make_result(3, origin="guided")
    job = Job(5, "tpe", 0, earlier.architecture)
    task = Task(tmp_path, dataset, measure(dataset.train), Recipe(), seed=0)
    path = result_path(task, earlier.step)
    path.parent.mkdir()
    path.touch()
    recorded: list[Result] = []
    study = SimpleNamespace(record=recorded.append)
    progress = SimpleNamespace(
        running={"a": (job, 0, 0.0)}, broken=None, notices=[], results=[], study=study
    )
    searcher = JobSearcher(FixedJobs(cast("Any", progress), [], 1), task, lambda _: None)
    searcher.on_trial_complete("a", {"done": True, "result": earlier.model_dump_json()})
    assert [(result.number, result.origin) for result in recorded] == [(5, "tpe")]
    assert progress.results == recorded


def test_a_network_over_the_latency_is_a_result_and_was_not_trained(
    tmp_path: Path, dataset: Dataset, architecture: Architecture
) -> None:
    recipe = Recipe()
    worker = object.__new__(Worker)
    worker.task = Task(tmp_path, dataset, measure(dataset.train), recipe, seed=0, max_latency=0.001)
    worker.job = Job(3, "guided", 0, architecture)
    worker.clock, worker.evaluation, worker.retry, worker.watchdog = Clock(), None, None, Watchdog()
    worker.unfit = None
    told = Result.model_validate_json(worker.step()["result"])
    assert (told.status, told.too_slow, told.accuracy) == ("failed", True, None)
    assert told.latency is not None
    assert told.cause == f"one image takes {told.latency:.3g} ms, and at most 0.001 ms are allowed"


def test_ray_keeps_little_of_an_ended_job() -> None:
    kept = _TrainingRunMetadata(n_steps=[5, 10])
    for name in ("loss", "epoch", "pid"):
        kept.update_metric(name, 1.0, step=1)
    kept.last_result = {"result": "x" * 1000, "done": True}
    before = len(pickle.dumps(kept.__dict__))
    Forgetting().on_trial_complete(1, [], SimpleNamespace(run_metadata=kept))
    assert len(pickle.dumps(kept.__dict__)) < before / 5
    assert kept.last_result["done"]


def test_ray_reads_no_errors_of_ended_jobs(tmp_path: Path) -> None:
    """A full disk may have cut them short, and Ray would unpickle them for nobody."""
    (tmp_path / "error.pkl").write_bytes(b"")
    storage = SimpleNamespace(storage_filesystem=LocalFileSystem(), trial_fs_path=str(tmp_path))
    kept = SimpleNamespace(pickled_error_filename="error.pkl", error_filename="error.txt")
    trial = SimpleNamespace(run_metadata=kept, storage=storage)
    with pytest.raises(EOFError):
        Trial.get_pickled_error(trial)
    Forgetting().on_experiment_end([trial])
    assert Trial.get_pickled_error(trial) is None
    assert Trial.get_error(trial) is None
