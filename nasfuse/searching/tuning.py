"""Jobs as Ray Tune sees them: a searcher that hands them out, a stopper.

Ray's trials are jobs (a network on a rung), not Optuna's trials. Ray's own state is disposable:
a resumed search starts a new tuner, so what Ray pickles of these objects is never read.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from nasfuse.errors import SetupError, StorageError
from nasfuse.results import Result
from nasfuse.searching.logbook import log
from nasfuse.searching.lookout import Lookout, cause_of_death, killed_for_memory
from nasfuse.searching.schedule import OVERTIME, Listener, Progress, Work
from nasfuse.searching.thrift import Forgetting, InTurn, workers_kept
from nasfuse.searching.trainable import Worker
from nasfuse.searching.worker import Job, Task, record, result_path

SETTLED = 0.2  # seconds in which Ray has sent a job to its worker


def _refusal(text: str) -> StorageError | SetupError:
    found = json.loads(text)
    return {kind.__name__: kind for kind in (StorageError, SetupError)}[found["kind"]](
        **found["told"]
    )


class JobSearcher(Searcher):  # type: ignore[misc]
    """Hands the schedule's jobs to Ray and takes their results to the study."""

    def __init__(self, schedule: Work, task: Task, listen: Listener) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.schedule, self.task, self.listen = schedule, task, listen
        self.progress = schedule.progress
        self._handed_out = 0.0
        self._killed: dict[str, int | None] = {}  # by the system, when a job began

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            job = None if self.progress.broken else self._next()
        except Exception as broken:  # Ray would show it with its own traces
            self.progress.broken = broken
        if self.progress.broken:
            return str(Searcher.FINISHED)
        if job is None:
            return str(Searcher.FINISHED) if self.schedule.finished else None
        self._handed_out = time.monotonic()
        self.progress.running[trial_id] = (job, 0, float("nan"))
        self._killed[trial_id] = killed_for_memory()
        self.listen(self.progress)
        return {"job": job.to_config()}

    def _next(self) -> Job | None:
        """A job where a worker is free; where there is none, what was begun goes to the disk."""
        free = len(self.progress.running) < self.schedule.workers
        job = self.schedule.next() if free else None
        if job is None and time.monotonic() - self._handed_out > SETTLED:
            self.schedule.keep()
        return job

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
                found = Result.model_validate_json(result["result"])
                # a worker that outlived another search may have had it under another number
                self._finish(found.model_copy(update={"number": job.number, "origin": job.origin}))
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
        self.schedule.keep()
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
