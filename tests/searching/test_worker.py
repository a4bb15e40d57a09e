from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nasfuse.architecture import Architecture
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe, Rung
from nasfuse.results import Result, judged
from nasfuse.searching import worker
from nasfuse.searching.worker import Evaluation, Job, Task, TooSlow, record, recorded

RUNGS = (Rung(share=0.5, epochs=1), Rung(share=1.0, epochs=3))


@pytest.fixture
def task(tmp_path: Path, dataset: Dataset) -> Task:
    recipe = Recipe(batch=16, rungs=RUNGS)
    return Task(tmp_path / "trials", dataset, measure(dataset.train), recipe, seed=0)


@pytest.fixture
def job(architecture: Architecture) -> Job:
    return Job(4, "all-add", 1, architecture)


def finish(evaluation: Evaluation) -> Result:
    while not evaluation.done:
        evaluation.epoch()
    return evaluation.finish()


def test_a_network_over_the_latency_is_not_trained_and_one_below_keeps_what_was_measured(
    task: Task, job: Job
) -> None:
    first = replace(job, rung=0)
    with pytest.raises(TooSlow, match=r"at most 0\.001 ms") as caught:
        Evaluation(replace(task, max_latency=0.001), first)
    assert caught.value.latency > 0.001
    fast = replace(task, max_latency=1e6)
    result = finish(Evaluation(fast, first))
    assert result.latency is not None
    assert finish(Evaluation(fast, job)).latency == result.latency


def test_a_job_travels_as_plain_values(job: Job) -> None:
    assert Job.from_config(job.to_config()) == job


def test_a_finished_job_is_on_the_disk(task: Task, job: Job) -> None:
    result = finish(Evaluation(task, job))
    folder = task.trials / job.key
    assert Result.model_validate_json((folder / "rung1.json").read_text()) == result
    assert result.accuracy is not None
    assert result.accuracy > 0.5
    assert (result.macs, result.params, result.thop) == cost(job.architecture)
    assert {p.name for p in folder.iterdir()} == {
        "architecture.json",
        "rung1.json",
        "rung1.safetensors",
    }
    build(job.architecture).load_state_dict(load_file(folder / "rung1.safetensors"))
    content = (folder / "rung1.safetensors").read_bytes()
    assert result.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_a_killed_job_goes_on_from_its_last_epoch(task: Task, job: Job) -> None:
    whole = finish(Evaluation(replace(task, trials=task.trials / "whole"), job))
    killed = Evaluation(task, job)
    killed.epoch()
    killed.epoch()
    torch.manual_seed(99)
    resumed = Evaluation(task, job)
    assert resumed.training.done == 2 * resumed.training.per_epoch
    result = finish(resumed)
    assert (result.accuracy, result.loss) == (whole.accuracy, whole.loss)


def test_the_same_job_gives_the_same_result(task: Task, job: Job) -> None:
    results = [finish(Evaluation(replace(task, trials=task.trials / name), job)) for name in "ab"]
    assert results[0].accuracy == results[1].accuracy
    assert results[0].loss == results[1].loss


@pytest.fixture
def paused(task: Task) -> Task:
    rungs = (Rung(share=1.0, epochs=3, stop=0.5), Rung(share=1.0, epochs=3))
    return replace(task, recipe=Recipe(batch=16, rungs=rungs))


def test_a_promoted_job_goes_on_where_it_was_paused(paused: Task, job: Job) -> None:
    pause, top = replace(job, rung=0), replace(job, rung=1)
    unbroken = finish(Evaluation(replace(paused, trials=paused.trials / "whole"), top))
    first = finish(Evaluation(paused, pause))
    folder = paused.trials / job.key
    assert (folder / "rung0.ckpt").exists()
    assert first.train_loss is not None
    assert first.loss is not None
    assert first.calibrated_loss is not None
    assert 0 < first.calibrated_loss <= first.loss
    going_on = Evaluation(paused, top)
    assert going_on.training.done == 9
    assert going_on.training.steps == 18
    assert going_on.clock.spent["seconds"] < first.seconds
    result = finish(going_on)
    assert (result.accuracy, result.loss) == (unbroken.accuracy, unbroken.loss)
    assert result.train_loss == pytest.approx(unbroken.train_loss)
    assert not list(folder.glob("*.ckpt"))


def test_a_pause_is_judged_by_averaged_weights(paused: Task, job: Job) -> None:
    evaluation = Evaluation(paused, replace(job, rung=0))
    finish(evaluation)
    judged = load_file(paused.trials / job.key / "rung0.safetensors")
    trained = evaluation.training.network.state_dict()
    name = "stem.conv.conv.weight"
    assert not torch.equal(judged[name], trained[name])


def test_a_job_killed_while_it_is_judged_is_judged_again(paused: Task, job: Job) -> None:
    pause = replace(job, rung=0)
    whole = finish(Evaluation(paused, pause))
    again = Evaluation(paused, pause)
    assert again.done
    assert again.finish().accuracy == whole.accuracy


def test_repeats_differ_in_their_seed_and_files(task: Task, job: Job) -> None:
    first, again = (finish(Evaluation(task, replace(job, repeat=n))) for n in (0, 1))
    assert (first.repeat, again.repeat) == (0, 1)
    assert first.loss != again.loss
    assert first.right is None
    right = judged([again, again], len(task.dataset.validation)).bits
    assert right is not None
    assert right[0].bit_count() == round((again.accuracy or 0) * len(task.dataset.validation))
    names = {p.name for p in (task.trials / job.key).iterdir()}
    assert {"rung1.json", "rung1-1.json", "rung1.safetensors", "rung1-1.safetensors"} <= names


def test_a_retry_keeps_half_the_batch_to_the_end_of_its_run(paused: Task, job: Job) -> None:
    pause, top = replace(job, rung=0), replace(job, rung=1)
    whole = Evaluation(paused, pause)
    whole.epoch()
    retried = Evaluation(paused, pause, retry="OutOfMemoryError: tried 20 MiB")
    assert (whole.training.recipe.batch, retried.training.recipe.batch) == (16, 8)
    assert retried.training.done == 0, "what was trained with the whole batch is left"
    assert retried.training.steps == 2 * whole.training.steps
    first = finish(retried)
    assert (first.batch, first.retry) == (8, "OutOfMemoryError: tried 20 MiB")
    going_on = Evaluation(paused, top)
    assert going_on.training.done == retried.training.done > 0
    last = finish(going_on)
    assert (last.batch, last.retry) == (first.batch, first.retry)


def test_results_say_the_batch(task: Task, job: Job) -> None:
    result = finish(Evaluation(task, job))
    assert (result.batch, result.retry, result.recomputes) == (16, None, None)


def test_more_images_are_judged_at_once_on_a_gpu(
    task: Task, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for after each batch; batch norm is measured as on a CPU."""
    assert worker.JUDGED["cuda"] > worker.JUDGED["cpu"]
    sizes: list[int] = []
    for name in ("recalibrate", "evaluate"):
        does = getattr(worker, name)

        def noted(*parts: Any, batch: int, does: Callable[..., Any] = does) -> Any:
            sizes.append(batch)
            return does(*parts, batch=batch)

        monkeypatch.setattr(worker, name, noted)
    finish(Evaluation(task, job))
    monkeypatch.setitem(worker.JUDGED, "cpu", worker.JUDGED["cuda"])
    finish(Evaluation(task, replace(job, repeat=1)))
    finish(Evaluation(task, replace(job, repeat=2), retry="OutOfMemoryError"))
    assert sizes == [128, 128, 128, worker.JUDGED["cuda"], 8, 8]


def test_slow_steps_of_a_gpu_are_said(task: Task, job: Job) -> None:
    evaluation = Evaluation(task, job)
    evaluation.epoch()
    assert evaluation.notice is None
    evaluation.training.compute.refused = "RuntimeError: not permitted"
    evaluation.epoch()
    assert evaluation.notice == (
        "steps run one by one, not as a CUDA graph: RuntimeError: not permitted"
    )


def test_a_failure_is_recorded_with_its_cause(task: Task, job: Job) -> None:
    result = record(task, job, {"seconds": 1.5}, cause="NonFiniteError: training loss is nan")
    assert result.status == "failed"
    assert result.accuracy is None
    assert result.cause == "NonFiniteError: training loss is nan"
    assert (task.trials / job.key / "rung1.json").exists()


def test_a_failure_takes_no_complete_result_away(task: Task, job: Job) -> None:
    """As where a worker that outlived a killed search ends the job beside the resumed one."""
    whole = finish(Evaluation(task, job))
    path = task.trials / job.key / "rung1.json"
    kept = path.read_bytes()
    assert record(task, job, {"seconds": 0.0}, cause="its worker died three times") == whole
    assert path.read_bytes() == kept
    path.write_bytes(kept[:20])
    assert record(task, job, {"seconds": 0.0}, cause="a damaged result").status == "failed"


def test_a_result_that_is_damaged_or_of_another_step_is_none(task: Task, job: Job) -> None:
    """The network is then trained again, as if it had not come to its end."""
    assert recorded(task, job) is None
    whole = record(task, job, {"seconds": 1.5}, cause="it broke down")
    assert recorded(task, job) == whole
    path = task.trials / job.key / "rung1.json"
    kept = path.read_bytes()
    path.with_name("rung0.json").write_bytes(kept)
    assert recorded(task, replace(job, rung=0)) is None
    for damaged in (b"", kept[:20], kept.replace(b'"rung":1', b'"rung":-1'), b" " * 2_000_000):
        path.write_bytes(damaged)
        assert recorded(task, job) is None
    path.unlink()
    path.mkdir()
    assert recorded(task, job) is None


def test_latency_is_measured_on_the_first_rung_where_it_is_the_objective(
    task: Task, job: Job
) -> None:
    assert finish(Evaluation(task, replace(job, rung=0))).latency is None
    timed = replace(task, objective="latency", trials=task.trials / "timed")
    first, last = (finish(Evaluation(timed, replace(job, rung=rung))) for rung in (0, 1))
    assert first.latency is not None
    assert first.latency > 0
    assert last.latency == first.latency == last.point.cost


IN_A_PROCESS = """
import pathlib, pickle, sys
from nasfuse.data.load import load_dataset
from nasfuse.data.batches import measure
from nasfuse.searching.worker import Evaluation, Task
import torch
torch.set_num_threads(1)
recipe, job = pickle.loads(pathlib.Path("job").read_bytes())
dataset = load_dataset("photos", side=16)
task = Task(pathlib.Path(sys.argv[1]), dataset, measure(dataset.train), recipe, seed=0)
evaluation = Evaluation(task, job)
while not evaluation.done:
    evaluation.epoch()
result = evaluation.finish()
print(result.accuracy.hex(), result.loss.hex(), result.data)
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bits(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (20, 24), np.uint8)).save(path)
    (tmp_path / "job").write_bytes(pickle.dumps((Recipe(batch=16, rungs=RUNGS), job)))
    said = [
        subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, trials],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for trials in ("decoded", "from the cache")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert len(said[0].split()) == 3
