"""Ray Tune made thrifty: it forgets ended jobs, and keeps the workers that it starts.

Some of what is touched here has no public name (Ray 2.60); tests notice where that changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import FIFOScheduler

from nasfuse.memory import give_back

OFTEN = 20  # ended jobs


class Forgetting(tune.Callback):  # type: ignore[misc]
    """Lets go of what Ray keeps of an ended job: 25 kB, of which nothing is asked again.

    Its statistics of every number that was reported take most of that.
    """

    def __init__(self) -> None:
        self.forgotten = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        kept = trial.run_metadata
        kept.metric_analysis.clear()
        kept.metric_n_steps.clear()
        kept.last_result = {"done": True}
        trial._default_result_or_future = None  # an object of Ray's, kept for it
        self.forgotten += 1
        if self.forgotten % OFTEN == 0:
            give_back()

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Nor are errors asked for: Ray would read files of them, which a full disk has cut short.

        What failed and why is in the study's results.
        """
        for trial in trials:
            trial.run_metadata.error_filename = trial.run_metadata.pickled_error_filename = None


class InTurn(FIFOScheduler):  # type: ignore[misc]
    """Leaves jobs to the order in which they wait.

    Ray's own scheduler looks through all that ever were for one that waits, at each event.
    """

    def choose_trial_to_run(self, tune_controller: Any, **_: Any) -> None:
        """No job before the others."""
        self._controller = tune_controller._tune_controller

    def end_worker(self, name: str) -> None:
        """Kill the process that a job has, or that starts for it; on whatever node, if stopped too.

        Ray then sees it die, as if by itself.
        """
        actors = self._controller._actor_manager._live_actors_to_ray_actors_resources
        for trial, actor in self._controller._trial_to_actor.items():
            if trial.trial_id == name and actor in actors:
                ray.kill(actors[actor][0])


@contextmanager
def workers_kept() -> Iterator[None]:
    """Let a job wait for the worker that starts for it, though another one is free.

    Else Ray gives it the free one and kills the other. Where trials take less time than a process
    to start, some seconds, that goes on for ever: one worker does all the work, and as many more
    start in vain as there are trials.
    """
    reuse = TuneController._maybe_reuse_cached_actor

    def reuse_unless_starting(self: Any, trial: Any) -> Any:
        own = self._trial_to_actor.get(trial)
        # one that waits for a processor, as after the death of a cluster's node, may never start
        starting = own is not None and self._actor_manager.is_actor_started(own)
        if starting and trial not in self._resetting_trials:
            return False
        return reuse(self, trial)

    TuneController._maybe_reuse_cached_actor = reuse_unless_starting
    try:
        yield
    finally:
        TuneController._maybe_reuse_cached_actor = reuse
