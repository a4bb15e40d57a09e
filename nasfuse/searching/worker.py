"""The worker's side: train one network on one rung, in a process that Ray keeps alive.

A worker writes its result and its weights to the trial's folder before it reports, so nothing
finished is lost when the driver dies; after each epoch it leaves a checkpoint to go on from.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.data.batches import Images, Normalisation, subset
from nasfuse.data.dataset import Dataset
from nasfuse.files import replacing, write_text
from nasfuse.network import build, cost, thop_macs
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.training import Training, evaluate, recalibrate


@dataclass(frozen=True)
class Task:
    """What every job of a search shares."""

    trials: Path
    dataset: Dataset
    normalisation: Normalisation
    recipe: Recipe
    seed: int
    gpu: bool = False

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.gpu else "cpu")


@dataclass(frozen=True)
class Job:
    """One network on one rung."""

    number: int
    origin: str
    rung: int
    architecture: Architecture

    @property
    def key(self) -> str:
        return self.architecture.key

    def to_config(self) -> dict[str, Any]:
        """As plain values, for Ray to carry."""
        return {
            "number": self.number,
            "origin": self.origin,
            "rung": self.rung,
            "architecture": self.architecture.to_json(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Job:
        document = json.loads(config["architecture"])
        architecture = parse_architecture(document, where="a job")
        return cls(config["number"], config["origin"], config["rung"], architecture)


def versions() -> dict[str, str]:
    """What accuracy may depend on besides the data, the recipe and the seed."""
    names = ("nasfuse", "torch", "optuna", "ray")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


class Evaluation:
    """A job on its way: `epoch` after `epoch`, then `finish`."""

    def __init__(self, task: Task, job: Job) -> None:
        self.task, self.job = task, job
        self.folder = task.trials / job.key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.spent = 0.0  # seconds of earlier attempts whose checkpoint this one goes on from
        write_text(self.folder / "architecture.json", job.architecture.to_json(indent=2) + "\n")
        self.training = self._training()
        self._restore()

    def _training(self) -> Training:
        """Seeded by the study and the architecture: the same in every process, at every try."""
        task, job = self.task, self.job
        seed = (task.seed + int(job.key, 16)) % 2**31
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        rung = task.recipe.rungs[job.rung]
        train = subset(task.dataset.train, rung.share, task.seed)
        images = Images.of(
            train, task.normalisation, resolution=job.architecture.resolution, device=task.device
        )
        network = build(job.architecture)
        return Training(network, images, task.recipe, epochs=rung.epochs, seed=seed)

    @property
    def done(self) -> bool:
        return self.training.done >= self.training.epochs

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def epoch(self) -> float:
        """Train one epoch and leave a checkpoint; returns the training loss."""
        loss = self.training.epoch()
        if not self.done:
            self._save()
        return loss

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"rung{self.job.rung}.ckpt"

    def _save(self) -> None:
        state = self.training.state() | {"seconds": self.seconds}
        with replacing(self._checkpoint) as path:
            torch.save(state, path)

    def _restore(self) -> None:
        if self._checkpoint.exists():
            # to the CPU, where states of random generators live; the rest finds its way
            state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
            self.training.restore(state)
            self.spent = float(state["seconds"])

    def finish(self) -> Result:
        """Score the network on the validation images, and write weights and result."""
        training, task = self.training, self.task
        recalibrate(training.network, training.images)
        validation = Images.of(
            task.dataset.validation,
            task.normalisation,
            resolution=self.job.architecture.resolution,
            device=task.device,
        )
        score = evaluate(training.network, validation)
        tensors = {k: v.contiguous().cpu() for k, v in training.network.state_dict().items()}
        with replacing(self.folder / f"rung{self.job.rung}.safetensors") as path:
            save_file(tensors, path, metadata={"architecture": self.job.key})
        result = self.result(accuracy=score.accuracy, loss=score.loss)
        self._checkpoint.unlink(missing_ok=True)
        return result

    def result(
        self,
        *,
        accuracy: float | None = None,
        loss: float | None = None,
        cause: str | None = None,
    ) -> Result:
        """The record of this job, on the disk before it is returned."""
        return record(self.task, self.job, self.seconds, accuracy=accuracy, loss=loss, cause=cause)


def recorded(task: Task, job: Job) -> Result | None:
    """The result of a job that is on the disk already."""
    path = task.trials / job.key / f"rung{job.rung}.json"
    return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def record(
    task: Task,
    job: Job,
    seconds: float,
    *,
    accuracy: float | None = None,
    loss: float | None = None,
    cause: str | None = None,
) -> Result:
    """A job's result, complete where it has an accuracy and failed where it has a cause."""
    price = cost(job.architecture)
    # the top rung is what will be exported: there thop itself is asked, not our formula for it
    asked = cause is None and job.rung == len(task.recipe.rungs) - 1
    result = Result(
        key=job.key,
        number=job.number,
        rung=job.rung,
        origin=job.origin,
        status="failed" if cause else "complete",
        architecture=job.architecture,
        macs=price.macs,
        params=price.params,
        thop=thop_macs(job.architecture) if asked else price.thop,
        accuracy=accuracy,
        loss=loss,
        cause=cause,
        seconds=round(seconds, 3),
        seed=task.seed,
        data=task.dataset.fingerprint,
        versions=versions(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder = task.trials / job.key
    folder.mkdir(parents=True, exist_ok=True)
    text = result.model_dump_json(exclude_none=True)
    write_text(folder / f"rung{job.rung}.json", text + "\n")
    return result
