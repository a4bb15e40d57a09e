"""Optimisers without torch's compiler do what torch's do, and import none of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from nasfuse.optimizers import EagerSGD

JOB = """
import sys
from pathlib import Path
from nasfuse.data.batches import measure
from nasfuse.data.load import load_dataset
from nasfuse.recipe import Recipe, Rung
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.worker import Evaluation, Job, Task
from nasfuse.space import load_space

data = load_dataset("digits", side=8)
candidate = load_space("default").for_images(channels=1, classes=10).sample(0)
network = fit_to_budget(candidate.architecture, candidate.scaling, 500_000)
paused, whole = Rung(share=1, epochs=2, stop=0.5), Rung(share=1, epochs=2)
recipe = Recipe(rungs=(Rung(share=0.1, epochs=1), paused, whole))
task = Task(Path(sys.argv[1]), data, measure(data.train), recipe, seed=0)
for rung in range(3):
    evaluation = Evaluation(task, Job(0, "x", rung, network))
    while not evaluation.done:
        evaluation.epoch()
    evaluation.finish()
print(*(name for name in sys.modules if name.startswith("torch._dynamo")))
"""


def steps(optimizer: Optimizer, parameter: nn.Parameter, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_it_is_torchs_bit_for_bit_also_from_its_state() -> None:
    found: list[Tensor] = []
    for kind in (EagerSGD, SGD):
        parameter = nn.Parameter(torch.linspace(-1, 1, 50))
        state: dict[str, Any] | None = None
        for part in range(2):
            optimizer = kind(
                [parameter], torch.tensor(0.1), 0.9, weight_decay=0.01, nesterov=True, fused=True
            )
            if state is not None:
                optimizer.load_state_dict(state)
            steps(optimizer, parameter, part)
            state = optimizer.state_dict()
        optimizer.zero_grad()
        assert parameter.grad is None
        found.append(parameter.detach())
    assert torch.equal(*found)
    assert not torch.equal(found[0], torch.linspace(-1, 1, 50))


@pytest.mark.slow
def test_a_worker_imports_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOB, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
