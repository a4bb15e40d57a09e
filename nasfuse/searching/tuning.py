"""Jobs as Ray Tune sees them: a trainable, a searcher that hands them out, a stopper.

Ray's trials are jobs (a network on a rung), not Optuna's trials. Ray's own state is disposable:
a resumed search starts a new tuner, so what Ray pickles of these objects is never read.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.search import Searcher

from nasfuse.errors import SetupError, StorageError
from nasfuse.memory import is_out_of_memory, release_memory
from nasfuse.results import Result
from nasfuse.searching.logbook import log
from nasfuse.searching.lookout import (
    Lookout,
    cause_of_death,
    killed_for_memory,
    stuck_path,
)
from nasfuse.searching.schedule import OVERTIME, Listener, Progress, Work
from nasfuse.searching.sharing import memory_fraction, mps_runs
from nasfuse.searching.thrift import Forgetting, InTurn, workers_kept
from nasfuse.searching.watchdog import Watchdog
from nasfuse.searching.worker import (
    Clock,
    Evaluation,
    Job,
    Manner,
    Task,
    TooSlow,
    record,
    recorded,
    result_path,
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
            if self._halved or not is_out_of_memory(error):
                return _finished(self._failed(cause))
            self.retry = cause
        self.evaluation = None  # after the error, whose traceback held what it was about
        release_memory(self.task.device)
        notice = f"{self.job.key}: out of memory; it begins again with half the batch"
        return {"epoch": 0, "loss": float("nan"), "notice": notice}

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


def _refusal(text: str) -> StorageError | SetupError:
    found = json.loads(text)
    return {kind.__name__: kind for kind in (StorageError, SetupError)}[found["kind"]](
        **found["told"]
    )


def _finished(result: Result) -> dict[str, Any]:
    return {"done": True, "result": result.model_dump_json(exclude_none=True)}


class JobSearcher(Searcher):  # type: ignore[misc]
    """Hands the schedule's jobs to Ray and takes their results to the study."""

    def __init__(self, schedule: Work, task: Task, listen: Listener) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.schedule, self.task, self.listen = schedule, task, listen
        self.progress = schedule.progress
        self._killed: dict[str, int | None] = {}  # by the system, when a job began

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.progress.running) >= self.schedule.workers:
            return None
        try:
            job = None if self.progress.broken else self.schedule.next()
        except Exception as broken:  # Ray would show it with its own traces
            self.progress.broken = broken
        if self.progress.broken:
            return str(Searcher.FINISHED)
        if job is None:
            return str(Searcher.FINISHED) if self.schedule.finished else None
        self.progress.running[trial_id] = (job, 0, float("nan"))
        self._killed[trial_id] = killed_for_memory()
        self.listen(self.progress)
        return {"job": job.to_config()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._note(result)
        if trial_id in self.progress.running and "epoch" in result:
            job = self.progress.running[trial_id][0]
            self.progress.running[trial_id] = (job, result["epoch"], result["loss"])
            self.listen(self.progress)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        job, *_ = self.progress.running.pop(trial_id, (None,))
        killed = self._killed.pop(trial_id, None)
        if job is None:
            return
        self._note(result or {})
        try:
            if result and "refused" in result:
                raise _refusal(result["refused"])
            if result and "result" in result:
                self._finish(Result.model_validate_json(result["result"]))
            elif error:
                cause = cause_of_death(self.task, job, killed)
                self._finish(record(self.task, job, {"seconds": 0.0}, cause=cause))
            # else it was stopped on the way; a resumed search goes on from its checkpoint
        except Exception as broken:  # Ray would swallow it and train the job again
            self.progress.broken = self.progress.broken or broken

    def _note(self, result: dict[str, Any]) -> None:
        """Keep what a worker has to say, once; it says it with each of its reports."""
        notice = result.get("notice")
        if notice and notice not in self.progress.notices:
            log.warning(notice)
            self.progress.notices.append(notice)

    def _finish(self, result: Result) -> None:
        if not result_path(self.task, result.step).exists():
            raise SetupError(
                "a worker's files are not on this machine",
                where=str(self.task.trials),
                why="its Ray node writes to another disk",
                fix="--studies FOLDER   on a disk that all nodes of the cluster share",
            )
        self.progress.study.record(result)
        self.progress.results.append(result)
        self.schedule.take(result)
        self.listen(self.progress)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its study, not from Ray's state")


class StudyStopper(tune.Stopper):  # type: ignore[misc]
    """Ends the run when it was asked to stop, is far over its time or fails throughout."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return self.progress.stopping is not None  # after the running step, whose work is kept

    def stop_all(self) -> bool:
        progress, limit = self.progress, self.progress.limits.seconds
        if progress.stopping is None and progress.home.asked_to_stop:
            progress.stopping = "nasfuse stop"
        late = limit is not None and progress.seconds > OVERTIME * limit
        # systems that send SIGTERM kill soon after; who presses Ctrl-C can wait for a step
        at_once = progress.stopping == "SIGTERM" or progress.broken is not None
        return late or progress.failing or at_once


def tune_jobs(schedule: Work, task: Task, *, gpus_per_trial: float, listen: Listener) -> None:
    """Let Ray Tune run the schedule's jobs until it has no more; Ray must be initialised."""
    scratch = task.trials.parent / "ray"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(schedule.workers)  # which start at once
    shutil.rmtree(scratch, ignore_errors=True)  # of a search that was killed
    in_turn = InTurn()
    try:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Worker, task=task), {"cpu": 1, "gpu": gpus_per_trial}
            ),
            tune_config=tune.TuneConfig(
                search_alg=JobSearcher(schedule, task, listen),
                scheduler=in_turn,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                storage_path=str(scratch),
                name="jobs",
                verbose=0,
                stop=StudyStopper(schedule.progress),
                callbacks=[Forgetting(), Lookout(schedule.progress, task, in_turn.end_worker)],
                failure_config=tune.FailureConfig(max_failures=2),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with workers_kept():
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
