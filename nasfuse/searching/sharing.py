"""Several trials on one GPU: as many as its memory holds, by what the dearest networks take there.

Without NVIDIA's Multi-Process Service (MPS) the kernels of several processes take turns on a GPU,
and one trial only uses what another leaves idle; with it they run at the same time. A process joins
MPS by itself where its control daemon runs. https://docs.nvidia.com/deploy/mps/
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from nasfuse.architecture import Architecture
from nasfuse.data.dataset import Dataset
from nasfuse.errors import BudgetError
from nasfuse.network import cost
from nasfuse.recipe import Recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.cluster import GPU_SHARE
from nasfuse.searching.probing import Probe
from nasfuse.searching.study import Settings
from nasfuse.space import PatternTrial

IN_TURN, AT_ONCE = 4, 16  # trials on a GPU at most, without and with MPS
SPARE = 0.1  # of the free memory, for what a probe of some networks did not see
CONTEXT = 600e6  # bytes that CUDA takes in each process, of which torch's allocator knows nothing
SAMPLES, PROBED = 64, 3  # members of the space that are compared, and of these trained
DAEMON = "nvidia-cuda-mps-control"
PATIENCE = 300.0  # seconds for a probe


class Sharing(NamedTuple):
    """How many trials share a GPU and why; without a probe, why there is none."""

    trials: int
    mps: bool
    probe: Probe | None = None
    problem: str | None = None

    @property
    def share(self) -> float:
        """Of a GPU, for each trial; Ray counts in parts of 1/10,000."""
        return int(1e4 / self.trials) / 1e4

    @property
    def text(self) -> str:
        """One line for people."""
        probe = self.probe
        why = f"memory not measured: {self.problem}"
        if probe is not None:
            why = (
                f"the dearest networks take up to {probe.peak / 1e9:.1f} of {probe.free / 1e9:.1f} "
                "GB that are free (measured)"
            )
        return f"{self.trials} at once on each; {why}; {mps_text(self.mps)}"


def trials_per_gpu(probe: Probe, *, mps: bool) -> int:
    """As many as fit into what is free, up to what a GPU was seen to gain from."""
    fitting = int((1 - SPARE) * probe.free / max(1, probe.peak))
    return max(1, min(fitting, AT_ONCE if mps else IN_TURN))


def memory_fraction(share: float, total: int) -> float:
    """Of a GPU's `total` bytes, what the allocator of a trial may take so that neighbours fit."""
    return max(share / 2, share - CONTEXT / total)


def share_gpus(settings: Settings, dataset: Dataset) -> Sharing:
    """Train the dearest networks for a few steps, in a process that frees the GPU when it ends."""
    mps, problem = mps_runs(), ""
    request = {
        "device": "cuda",
        "recipe": largest(settings.recipe).model_dump(mode="json"),
        "images": [len(dataset.train) + len(dataset.validation), *dataset.train.images.shape[1:]],
        "architectures": [one.to_json() for one in dearest(settings)],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nasfuse.searching.probing"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        probe = Probe(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    except (IndexError, ValueError, TypeError):
        problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    else:
        return Sharing(trials_per_gpu(probe, mps=mps), mps, probe)
    return Sharing(int(1 / GPU_SHARE), mps, problem=problem[:200])


def largest(recipe: Recipe) -> Recipe:
    """The recipe of the rung that takes the most memory."""
    return max((recipe.at(rung) for rung in range(len(recipe.rungs))), key=lambda one: one.batch)


def dearest(settings: Settings, count: int = PROBED) -> Sequence[Architecture]:
    """Of hand-made and random members at the whole budget those that keep the most for a gradient.

    What thop counts beyond multiply-adds are elements of normalised maps, which training keeps.
    """
    space = settings.search_space
    made = [space.suggest(PatternTrial(pattern)) for pattern in space.references.values()]
    found: dict[str, tuple[int, Architecture]] = {}
    for candidate in [*made, *map(space.sample, range(SAMPLES))]:
        try:
            one = fit_to_budget(candidate.architecture, candidate.scaling, settings.budget)
        except BudgetError:
            continue
        price = cost(one)
        found[one.key] = (price.thop - price.macs, one)
    ranked = sorted(found.values(), key=lambda pair: pair[0], reverse=True)
    return [one for _, one in ranked[:count]]


def mps_runs(
    environment: Mapping[str, str] = os.environ, processes: Collection[str] | None = None
) -> bool:
    """Whether processes started here share GPUs by MPS.

    Its daemon is looked for among the processes; one of another container is known by the pipe that
    the variable CUDA_MPS_PIPE_DIRECTORY names.
    """
    if processes is None:
        processes = {process.info["name"] for process in psutil.process_iter(["name"])}
    if DAEMON in processes or DAEMON[:15] in processes:  # Linux cuts names
        return True
    folder = environment.get("CUDA_MPS_PIPE_DIRECTORY")
    return bool(folder) and (Path(str(folder)) / "control").exists()


def mps_text(runs: bool | None = None) -> str:
    """What is said of MPS, by default of that of this machine."""
    if mps_runs() if runs is None else runs:
        return "MPS runs: trials on one GPU compute at the same time"
    return f"MPS does not run: trials on one GPU take turns ({DAEMON} -d starts it)"
