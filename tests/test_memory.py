"""Running out of memory for real, and what is known of memory beforehand."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nasfuse import memory
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.memory import (
    free_memory,
    is_out_of_memory,
    needed_memory,
    recompute_if_needed,
    room,
)
from nasfuse.network import build

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")

# a worker of a search that may take `share` of what its network needs with the whole batch
WORKER = """
import json, resource, sys
from pathlib import Path
import numpy as np, psutil, torch
from nasfuse.architecture import parse_architecture
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Split, assemble
from nasfuse.memory import needed_memory
from nasfuse.recipe import Recipe, Rung
from nasfuse.searching.tuning import Worker
from nasfuse.searching.worker import Job, Task

folder, share, document = Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
labels = np.arange(256) % 3
images = np.random.default_rng(0).integers(0, 256, (256, 1, 16, 16), dtype=np.uint8)
part = Split(images, labels)
dataset = assemble("noise", ("a", "b", "c"), train=part, validation=Split(images[:30], labels[:30]))
recipe = Recipe(batch=128, rungs=(Rung(share=1, epochs=1), Rung(share=1, epochs=2)))
task = Task(folder, dataset, measure(part), recipe, seed=0)
job = Job(0, "all-add", 0, parse_architecture(document, where="a test"))
torch.set_num_threads(1)
Worker.setup(worker := object.__new__(Worker), {"job": job.to_config()}, task)
needed = needed_memory(job.architecture, 128, device=torch.device("cpu"))
limit = psutil.Process().memory_info().vms + int(share * needed)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
reports = []
while not (reports and reports[-1].get("done")):
    reports.append(worker.step())
print(json.dumps(reports))
"""


def wide(document: dict[str, Any]) -> dict[str, Any]:
    """A network whose maps take far more memory than its weights."""
    stage = {"depth": 2, "stride": 1, "block": {"kind": "residual", "kernel": 1}, "width": 16}
    stage["fusion"] = ["add", "add"]
    return {**document, "resolution": 96, "stages": [stage]}


def work(folder: Path, share: float, document: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder), str(share), json.dumps(document)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return reports


@linux
def test_out_of_memory_halves_the_batch_once(tmp_path: Path, document: dict[str, Any]) -> None:
    *before, last = work(tmp_path, 0.75, wide(document))
    assert "half the batch" in before[0]["notice"]
    result = json.loads(last["result"])
    assert (result["status"], result["batch"]) == ("complete", 64)
    assert "memory" in result["retry"]


@linux
def test_out_of_memory_again_fails_the_trial(tmp_path: Path, document: dict[str, Any]) -> None:
    first, last = work(tmp_path, 0.2, wide(document))
    assert "half the batch" in first["notice"]
    result = json.loads(last["result"])
    assert (result["status"], result["batch"]) == ("failed", 64)
    assert "memory" in result["cause"] or "primitive" in result["cause"]
    assert result["retry"]
