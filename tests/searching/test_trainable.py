"""What a worker makes of errors of its GPU; only torch's errors are made up here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasfuse.architecture import Architecture
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.recipe import Recipe, Rung
from nasfuse.searching.lookout import cause_of_death
from nasfuse.searching.trainable import Worker
from nasfuse.searching.worker import Job, Task, recorded
from nasfuse.training import Training

ACCESS = "CUDA error: an illegal memory access was encountered"
Failing = Callable[[Exception], Worker]


@pytest.fixture
def failing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: Dataset, architecture: Architecture
) -> Failing:
    """A worker whose training ends with an error at its first step."""

    def make(error: Exception) -> Worker:
        def broken(training: Training, x: Tensor, y: Tensor) -> Tensor:
            raise error

        monkeypatch.setattr(Training, "_compute", broken)
        recipe = Recipe(batch=32, rungs=(Rung(share=1, epochs=1), Rung(share=1, epochs=2)))
        task = Task(tmp_path, dataset, measure(dataset.train), recipe, seed=0)
        worker = object.__new__(Worker)
        Worker.setup(worker, {"job": Job(0, "all-add", 0, architecture).to_config()}, task)
        return worker

    return make


def test_a_lost_gpu_ends_the_process_and_not_the_trial(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", end)
    worker = failing(torch.AcceleratorError(f"{ACCESS}\nCompile with TORCH_USE_CUDA_DSA"))
    with pytest.raises(SystemExit):
        worker.step()
    assert ended == [1]
    assert recorded(worker.task, worker.job) is None
    cause = cause_of_death(worker.task, worker.job, None)
    assert cause == (
        f"its worker died three times: AcceleratorError: {ACCESS}; rung0.stuck has the stack"
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), torch.AcceleratorError("CUDA error: out of memory")]
)
def test_other_errors_are_of_the_network(failing: Failing, error: Exception) -> None:
    worker = failing(error)
    last = worker.step()
    while not last.get("done"):
        last = worker.step()
    assert "failed" in last["result"]
