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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nasfuse.agreement import packed
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.checkpoints import load_checkpoint, remove_checkpoint, save_checkpoint
from nasfuse.data.batches import Images, Normalisation, subset
from nasfuse.data.dataset import Dataset, Split
from nasfuse.documents import MAX_BYTES
from nasfuse.errors import StorageError
from nasfuse.files import write_text
from nasfuse.kept_weights import save_weights
from nasfuse.latency import measure_latency
from nasfuse.memory import recompute_if_needed, room
from nasfuse.network import build, cost, thop_macs
from nasfuse.recipe import Recipe
from nasfuse.results import Objective, Result, Step, parse_result
from nasfuse.training import Training, evaluate, recalibrate

REPEAT_STRIDE = 1_000_003  # between the seeds of a finalist's trainings
RECALIBRATED = 128  # images at once, when batch norm is measured anew
JUDGED = {"cpu": 128, "cuda": 512}  # when a network is judged; a GPU is waited for after each batch


class TooSlow(Exception):
    """A network takes longer for one image than the search allows, and is not trained."""

    def __init__(self, latency: float, most: float) -> None:
        super().__init__(f"one image takes {latency:.3g} ms, and at most {most:g} ms are allowed")
        self.latency = latency


@dataclass(frozen=True)
class Task:
    """What every job of a search shares.

    `gpus` is the share of a GPU that a worker has, by MPS or not, `workers` how many share this
    machine's main memory. `max_latency` are milliseconds for one image. Where jobs are
    `paired`, seeds do not depend on the network, so that two with the same repeat see the same
    batches, and no weights are kept, for only accuracies are compared.
    """

    trials: Path
    dataset: Dataset
    normalisation: Normalisation
    recipe: Recipe
    seed: int
    gpus: float = 0.0
    mps: bool | None = None
    workers: int = 1
    objective: Objective = "macs"
    max_latency: float | None = None
    paired: bool = False

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.gpus else "cpu")

    @property
    def room(self) -> int:
        """Bytes of memory that a worker may take now."""
        return room(self.device, min(1.0, self.gpus) if self.gpus else 1 / self.workers)


@dataclass(frozen=True)
class Job:
    """One network on one rung; a finalist again, with another seed, where `repeat` is not 0."""

    number: int
    origin: str
    rung: int
    architecture: Architecture
    repeat: int = 0

    @property
    def key(self) -> str:
        return self.architecture.key

    @property
    def step(self) -> Step:
        return Step(self.key, self.rung, self.repeat)

    def to_config(self) -> dict[str, Any]:
        """As plain values, for Ray to carry."""
        return {
            "number": self.number,
            "origin": self.origin,
            "rung": self.rung,
            "architecture": self.architecture.to_json(),
            "repeat": self.repeat,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Job:
        document = json.loads(config["architecture"])
        architecture = parse_architecture(document, where="a job")
        number, origin, rung = config["number"], config["origin"], config["rung"]
        return cls(number, origin, rung, architecture, config["repeat"])


def versions() -> dict[str, str]:
    """What accuracy may depend on besides the data, the recipe and the seed."""
    names = ("nasfuse", "torch", "optuna", "ray")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


class Clock:
    """Seconds that pass and that the processor works, with those of earlier attempts at a job."""

    def __init__(self, earlier: Mapping[str, float] | None = None) -> None:
        self._earlier, self._began = earlier or {}, self._now()

    def _now(self) -> dict[str, float]:
        return {"seconds": time.monotonic(), "cpu_seconds": time.process_time()}

    @property
    def seconds(self) -> float:
        return self.spent["seconds"]

    @property
    def spent(self) -> dict[str, float]:
        return {
            name: round(self._earlier.get(name, 0.0) + now - self._began[name], 3)
            for name, now in self._now().items()
        }


class Manner(NamedTuple):
    """How a network came to be trained: the batch, and what memory asked for.

    `retry` is what made it begin again with half the batch; where it `recomputes`, its dense layers
    do in the backward pass, which changes no result.
    """

    batch: int
    retry: str | None = None
    recomputes: bool | None = None


class Evaluation:
    """A job on its way: `epoch` after `epoch`, then `finish`.

    A rung that goes on with a paused run begins from the checkpoint of the pause. `notice` says
    what was wrong with a checkpoint; the job goes on from the one before it, or begins again. It
    also says why a GPU has to train it more slowly than others.
    `retry` is why the job begins again with half the batch; its run then keeps that batch.
    """

    def __init__(self, task: Task, job: Job, retry: str | None = None) -> None:
        self.task, self.job = task, job
        self.retry, self.recomputes = retry, False
        self.notice: str | None = None
        self.folder = task.trials / job.key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock()
        write_text(self.folder / "architecture.json", job.architecture.to_json(indent=2) + "\n")
        self.latency = self._latency()
        self.rung = task.recipe.rungs[job.rung]
        state = self._saved()
        self.training = self._training()
        if state is not None:
            self.training.restore(state)
        if self.rung.stop < 1:
            self.training.keep_average()
        self.target = max(1, round(self.rung.stop * self.training.steps))

    def _training(self) -> Training:
        """Seeded by the study and the architecture: the same in every process, at every try."""
        task, job = self.task, self.job
        own = 0 if task.paired else int(job.key, 16)
        seed = (task.seed + job.repeat * REPEAT_STRIDE + own) % 2**31
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        train = subset(task.dataset.train, self.rung.share, task.seed)
        network, images = build(job.architecture), self._images(train)
        recipe = task.recipe.at(job.rung)
        recipe = recipe.halved() if self.retry else recipe
        self.recomputes = recompute_if_needed(
            network, job.architecture, recipe.batch, device=task.device, free=task.room
        )
        return Training(network, images, recipe, epochs=self.rung.epochs, seed=seed)

    def _images(self, split: Split) -> Images:
        resolution, task = self.job.architecture.resolution, self.task
        return Images.of(split, task.normalisation, resolution=resolution, device=task.device)

    @property
    def manner(self) -> Manner:
        return Manner(self.training.recipe.batch, self.retry, self.recomputes or None)

    @property
    def done(self) -> bool:
        return self.training.done >= self.target

    def epoch(self) -> float:
        """Train to the end of the epoch or rung, and leave a checkpoint; returns the loss."""
        loss = self.training.advance(self.target)
        if not self.done:
            self._save()
        if why := self.training.compute.refused:
            self.notice = self.notice or f"steps run one by one, not as a CUDA graph: {why}"
        return loss

    @property
    def _checkpoint(self) -> Path:
        """Of the run, which may go on over several rungs."""
        step = self.job.step._replace(rung=self.task.recipe.run(self.job.rung))
        return self.folder / f"{step.stem}.ckpt"

    def _save(self) -> None:
        about = {"rung": self.job.rung, "spent": self.clock.spent, "retry": self.retry}
        save_checkpoint(self._checkpoint, self.training.state() | about)

    def _saved(self) -> dict[str, Any] | None:
        """What there is to go on from; of a retry only what it has left itself."""
        try:
            found = load_checkpoint(self._checkpoint)
        except StorageError as error:
            self.notice = f"{self.job.key}: {error.what} ({error.why}); its training begins again"
            return None
        if found is None:
            return None
        earlier = found.state.get("retry")
        if self.retry and not earlier:
            remove_checkpoint(self._checkpoint)
            return None
        self.retry, self.notice = self.retry or earlier, found.notice
        if found.state["rung"] == self.job.rung:
            self.clock = Clock(found.state["spent"])
        return found.state

    def finish(self) -> Result:
        """Judge the network on the validation images, and write weights and result."""
        if self.rung.stop < 1:
            self._save()  # to go on from
            with self.training.averaged():
                return self._judge()
        result = self._judge()
        remove_checkpoint(self._checkpoint)
        return result

    def _judge(self) -> Result:
        training = self.training
        small = training.recipe.batch if self.retry else None
        recalibrate(training.network, training.images, batch=small or RECALIBRATED)
        validation = self._images(self.task.dataset.validation)
        judged = small or JUDGED[self.task.device.type]
        score = evaluate(training.network, validation, batch=judged)
        scores: dict[str, Any] = {**score._asdict(), "train_loss": training.loss}
        right = scores.pop("right")
        if self.job.repeat:  # what is repeated will be compared
            scores["right"] = packed(right)
        if not self.task.paired:
            weights = self.folder / f"{self.job.step.stem}.safetensors"
            scores["weights_sha256"] = save_weights(weights, training.network, key=self.job.key)
        if self.latency is not None:
            scores["latency"] = self.latency
        return record(self.task, self.job, self.clock.spent, scores=scores, manner=self.manner)

    def _latency(self) -> float | None:
        """Milliseconds for one image, measured on the first rung only: measuring scatters.

        Raises:
            TooSlow: it is over the limit, before anything is trained.
        """
        task, job = self.task, self.job
        if task.objective != "latency" and task.max_latency is None:
            return None
        first = recorded(task, replace(job, rung=0, repeat=0))
        if first is not None and first.latency is not None:
            return first.latency
        network = build(job.architecture).to(task.device)
        latency = measure_latency(network, job.architecture, task.device)
        if task.max_latency is not None and latency > task.max_latency:
            raise TooSlow(latency, task.max_latency)
        return latency


def recorded(task: Task, job: Job) -> Result | None:
    """The result of a job that is on the disk already; of one that is damaged there is none."""
    try:
        with result_path(task, job.step).open("rb") as file:
            result = parse_result(file.read(MAX_BYTES + 1), where="", fix="")
    except (OSError, StorageError):
        return None
    return result if result.step == job.step else None


def result_path(task: Task, step: Step) -> Path:
    """Where a worker writes the result of an evaluation."""
    return task.trials / step.key / f"{step.stem}.json"


def stuck_path(task: Task, job: Job) -> Path:
    """Where a worker's watchdog writes while it trains a job."""
    return result_path(task, job.step).with_suffix(".stuck")


def record(
    task: Task,
    job: Job,
    spent: Mapping[str, float],
    *,
    scores: Mapping[str, Any] | None = None,
    cause: str | None = None,
    manner: Manner | None = None,
) -> Result:
    """A job's result on the disk, complete where it has scores and failed where it has a cause.

    Where there is a complete one, that stays, and is returned: a worker that outlived its search
    may have finished the job at which another one failed.
    """
    if cause:
        earlier = recorded(task, job)
        if earlier is not None and earlier.status == "complete":
            return earlier
    price = cost(job.architecture)
    # the top rung is what will be exported: there thop itself is asked, not our formula for it,
    # and on the CPU, for the worker would be larger by the meta device from then on
    asked = cause is None and job.rung == task.recipe.top
    found: dict[str, Any] = {**(scores or {}), **(manner._asdict() if manner else {}), **spent}
    result = Result(
        key=job.key,
        number=job.number,
        rung=job.rung,
        repeat=job.repeat,
        origin=job.origin,
        status="failed" if cause else "complete",
        architecture=job.architecture,
        macs=price.macs,
        params=price.params,
        thop=thop_macs(job.architecture, device="cpu") if asked else price.thop,
        objective=task.objective,
        cause=cause,
        gpus=task.gpus or None,
        mps=task.mps,
        **found,
        seed=task.seed,
        data=task.dataset.fingerprint,
        versions=versions(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = result_path(task, job.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, result.model_dump_json(exclude_none=True) + "\n")
    return result
