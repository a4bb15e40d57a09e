"""Running out of memory, and what is known of memory beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasfuse import memory
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.data.batches import Images, measure
from nasfuse.data.dataset import Dataset
from nasfuse.errors import BudgetError
from nasfuse.memory import (
    ample_memory,
    free_memory,
    is_out_of_memory,
    needed_memory,
    recompute_if_needed,
    room,
)
from nasfuse.names import space_names
from nasfuse.network import build
from nasfuse.ops.recomputing import recompute
from nasfuse.recipe import Recipe, Rung
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.trainable import Worker
from nasfuse.searching.worker import Job, Task
from nasfuse.space import load_space
from nasfuse.training import Training, recalibrate

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")

Work = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: Dataset, architecture: Architecture
) -> Work:
    """What a worker reports of a network where memory is enough for batches of some size."""

    def reports(most: int) -> list[dict[str, Any]]:
        compute = Training._compute

        def limited(training: Training, x: Tensor, y: Tensor) -> Tensor:
            if len(x) > most:
                torch.empty(2**50)  # raises what torch raises; limits of the system crash libraries
            return compute(training, x, y)

        monkeypatch.setattr(Training, "_compute", limited)
        recipe = Recipe(batch=32, rungs=(Rung(share=1, epochs=1), Rung(share=1, epochs=2)))
        task = Task(tmp_path, dataset, measure(dataset.train), recipe, seed=0)
        worker = object.__new__(Worker)
        Worker.setup(worker, {"job": Job(0, "all-add", 0, architecture).to_config()}, task)
        found = [worker.step()]
        while not found[-1].get("done"):
            found.append(worker.step())
        return found

    return reports


def test_out_of_memory_halves_the_batch_once(work: Work) -> None:
    *before, last = work(16)
    assert "half the batch" in before[0]["notice"]
    result = json.loads(last["result"])
    assert (result["status"], result["batch"]) == ("complete", 16)
    assert "memory" in result["retry"]


def test_out_of_memory_again_fails_the_trial(work: Work) -> None:
    first, last = work(8)
    assert "half the batch" in first["notice"]
    result = json.loads(last["result"])
    assert (result["status"], result["batch"]) == ("failed", 16)
    assert "memory" in result["cause"]
    assert result["retry"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_looks_like(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.fixture
def dense(document: dict[str, Any]) -> Architecture:
    stage = {
        "depth": 6,
        "stride": 1,
        "block": {"kind": "dense", "kernel": 3, "bottleneck": 4},
        "fusion": ["concat"] * 6,
        "growth": 8,
    }
    return parse_architecture({**document, "stages": [stage]}, where="a test")


def test_dense_layers_recompute_where_memory_asks_for_it(
    dense: Architecture, architecture: Architecture
) -> None:
    needed = needed_memory(dense, 64, device=CPU)
    assert needed_memory(dense, 128, device=CPU) > 1.9 * needed
    options = {"batch": 64, "device": CPU}
    assert not recompute_if_needed(build(dense), dense, free=needed, **options)  # type: ignore[arg-type]
    assert recompute_if_needed(build(dense), dense, free=needed - 1, **options)  # type: ignore[arg-type]
    plain = build(architecture)
    assert not recompute_if_needed(plain, architecture, free=0, **options)  # type: ignore[arg-type]


def test_a_gpu_holds_a_captured_step_and_an_eager_one(dense: Architecture) -> None:
    maps = needed_memory(dense, 64, device=CPU) / memory.MARGINS["cpu"]
    assert needed_memory(dense, 64, device=torch.device("cuda")) > 2 * maps


@pytest.mark.parametrize("name", space_names())
def test_what_is_ample_is_more_than_what_is_needed(name: str) -> None:
    for seed in range(2):
        space = load_space(name).for_images(channels=3, classes=10)
        candidate = space.sample(seed)
        try:
            fitted = fit_to_budget(candidate.architecture, candidate.scaling, 3_000_000)
        except BudgetError as error:
            fitted = fit_to_budget(candidate.architecture, candidate.scaling, error.needed)
        needed = needed_memory(fitted, 32, device=CPU)
        assert needed < ample_memory(fitted, 32) / 2


def test_estimating_draws_no_random_numbers(dense: Architecture) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    needed_memory(dense, 8, device=CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_training_that_recomputes_ends_in_the_same_bits(
    dataset: Dataset, dense: Architecture
) -> None:
    ends = []
    for saves in (False, True):
        torch.manual_seed(0)
        network = build(dense)
        if saves:
            recompute(network)
        images = Images.of(dataset.train, measure(dataset.train), resolution=16, device=CPU)
        training = Training(network, images, Recipe(batch=16), epochs=2, seed=0)
        losses = [training.epoch(), training.epoch()]
        recalibrate(network, images)
        ends.append((losses, network.state_dict()))
    (losses, plain), (again, saving) = ends
    assert losses == again
    assert all(torch.equal(plain[name], saving[name]) for name in plain)


def test_room_is_a_share_of_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 80))
    assert room(torch.device("cuda"), 0.25) == 20
    assert room(torch.device("cuda"), 1.0) == 60  # others have the rest
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory() > 0
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory() == 600_000
    assert room(CPU, 0.5) == 300_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 600_000


@linux
def test_free_memory_heeds_the_limit_of_the_process() -> None:
    code = (
        "import resource, psutil; from nasfuse.memory import free_memory\n"
        "limit = psutil.Process().memory_info().vms + 100_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50_000_000 < int(done.stdout) <= 100_000_000
