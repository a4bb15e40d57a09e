"""What Ray Tune runs in a worker: a process that takes job after job.

Kept apart from what the driver does with Ray (`tuning.py`), which a worker need not import.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

import torch
from ray import tune

from nasfuse.errors import SetupError, StorageError
from nasfuse.memory import is_out_of_memory, release_memory
from nasfuse.results import Result
from nasfuse.searching.sharing import memory_fraction, mps_runs
from nasfuse.searching.watchdog import HEAD, Watchdog
from nasfuse.searching.worker import (
    Clock,
    Evaluation,
    Job,
    Manner,
    Task,
    TooSlow,
    record,
    recorded,
    stuck_path,
)
from nasfuse.training import reserve_memory

MAX_CAUSE = 2000  # characters of an error that a result keeps
THOROUGH = 50  # jobs of a worker between two looks for garbage among all that it keeps


class Worker(tune.Trainable):  # type: ignore[misc]
    """A process that takes job after job and trains one epoch a step."""

    def setup(self, config: dict[str, Any], task: Task | None = None) -> None:
        assert task is not None
        self.task, self.watchdog, self.begun = task, Watchdog(), 0
        self.unfit: SetupError | None = None
        try:
            self._prepare()
        except Exception as error:  # of the machine: no network could help it, and Ray says less
            self.unfit = SetupError(
                "a worker cannot begin",
                where=platform.node(),
                why=f"{type(error).__name__}: {error}"[:MAX_CAUSE],
                fix="nasfuse doctor",
            )
        self.reset_config(config)

    def _prepare(self) -> None:
        torch.set_num_threads(1)
        reserve_memory()
        share = self.task.gpus
        if share:
            self.task = replace(self.task, mps=mps_runs())
        if 0 < share < 1:  # what a trial can take must not depend on its neighbours
            _, total = torch.cuda.mem_get_info()
            torch.cuda.set_per_process_memory_fraction(memory_fraction(share, total))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.job = Job.from_config(new_config["job"])
        self.evaluation: Evaluation | None = None
        self.retry: str | None = None
        self.clock = Clock()
        self.begun += 1
        if self.begun % THOROUGH == 0:
            gc.unfreeze()  # some of what was left a while ago has become garbage
        if self.unfit is None:
            release_memory(self.task.device)
        gc.freeze()  # what is left, modules above all, stays: to look through it takes 0.15 s
        return True

    def step(self) -> dict[str, Any]:
        if self.unfit is not None:
            return _refused(self.unfit)
        try:
            return self._step()
        except TooSlow as slow:
            return _finished(self._failed(str(slow), {"latency": slow.latency, "too_slow": True}))
        except StorageError as error:  # a full disk is nothing that a network could help
            return _refused(error)
        except Exception as error:  # whatever the cause, the trial failed and the search goes on
            cause = f"{type(error).__name__}: {error}".strip()[:MAX_CAUSE]
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                self._end(cause, error)
            if self._halved or not is_out_of_memory(error):
                return _finished(self._failed(cause))
            self.retry = cause
        self.evaluation = None  # after the error, whose traceback held what it was about
        release_memory(self.task.device)
        notice = f"{self.job.key}: out of memory; it begins again with half the batch"
        return {"epoch": 0, "loss": float("nan"), "notice": notice}

    def _end(self, cause: str, error: torch.AcceleratorError) -> NoReturn:
        """End the process, which cannot use its GPU any more; Ray tries the job in another one."""
        with suppress(OSError):  # it is for a message only
            stack = "".join(traceback.format_tb(error.__traceback__))
            path = stuck_path(self.task, self.job)
            path.write_bytes(b" " * HEAD + f"{cause}\n{stack}".encode())
        os._exit(1)

    @property
    def _halved(self) -> bool:
        return bool(self.retry or (self.evaluation and self.evaluation.retry))

    def _failed(self, cause: str, found: Mapping[str, float] | None = None) -> Result:
        recipe = self.task.recipe.at(self.job.rung)
        begun = Manner((recipe.halved() if self.retry else recipe).batch, self.retry)
        manner = self.evaluation.manner if self.evaluation else begun
        return record(
            self.task, self.job, self.clock.spent, scores=found, cause=cause, manner=manner
        )

    def _step(self) -> dict[str, Any]:
        with self.watchdog.watch(stuck_path(self.task, self.job), self.clock.seconds):
            return self._train()

    def _train(self) -> dict[str, Any]:
        if self.evaluation is None:
            if result := recorded(self.task, self.job):  # before its worker died
                return _finished(result)
            self.evaluation = Evaluation(self.task, self.job, self.retry)
            self.evaluation.training.on_step = self.watchdog.alive
        loss = float("nan") if self.evaluation.done else self.evaluation.epoch()
        notice = {"notice": self.evaluation.notice} if self.evaluation.notice else {}
        if not self.evaluation.done:
            done = self.evaluation.training.done // self.evaluation.training.per_epoch
            return {"epoch": done, "loss": loss, **notice}
        return _finished(self.evaluation.finish()) | notice


def _refused(error: StorageError | SetupError) -> dict[str, Any]:
    """What ends the search, as text: Ray makes several values of one that has parts."""
    told = {"what": error.what, "where": error.where, "why": error.why, "fix": error.fix}
    return {"done": True, "refused": json.dumps({"kind": type(error).__name__, "told": told})}


def _finished(result: Result) -> dict[str, Any]:
    return {"done": True, "result": result.model_dump_json(exclude_none=True)}
