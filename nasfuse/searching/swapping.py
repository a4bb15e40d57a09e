"""Swapping: which trainings compare a network with its swaps, and where their results are.

They lie in `swaps/` of the study's folder, which is laid out as a study's own. So neither the front
nor a sampler sees them, and what a kill left is taken in as after a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from nasfuse.results import Result
from nasfuse.searching.schedule import Progress
from nasfuse.searching.study import Study
from nasfuse.searching.worker import Job
from nasfuse.swaps import ORIGINAL, Swap


def swaps_of(study: Study) -> Study:
    """The folder of a study's swaps, with the study's settings."""
    return Study(study.folder / "swaps", study.settings)


def swap_jobs(original: Result, swaps: Sequence[Swap], *, seeds: int, top: int) -> list[Job]:
    """Full trainings of a network with each of some fresh seeds, then of one swap after another."""
    networks = [(ORIGINAL, original.architecture), *((s.text, s.architecture) for s in swaps)]
    return [
        Job(original.number, origin, top, architecture, seed)
        for origin, architecture in networks
        for seed in range(1, seeds + 1)
    ]


class FixedJobs:
    """A list of jobs in its order, those that have a result left out."""

    def __init__(self, progress: Progress, jobs: Sequence[Job], workers: int) -> None:
        self.progress, self.workers = progress, workers
        done = {result.step for result in progress.results}
        self.waiting = [job for job in jobs if job.step not in done]

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self._goes_on else None

    @property
    def finished(self) -> bool:
        return not self.progress.running and not self._goes_on

    @property
    def _goes_on(self) -> bool:
        """Whether there is a next job, and time for it as far as others tell."""
        times = [r.seconds for r in self.progress.results if r.status == "complete"]
        expected = fmean(times) if times else 0.0
        in_time = expected <= self.progress.room
        return bool(self.waiting) and in_time and not self.progress.stopping

    def keep(self) -> None:
        """Nothing: the list can be made again."""

    def take(self, result: Result) -> None:
        """No next job depends on it."""
