"""What to train next, and where a search stands; nothing here knows Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from nasfuse.finals import FINALISTS, REPEATS, finalists
from nasfuse.names import is_reference
from nasfuse.results import MAX_FAILURES_IN_A_ROW, Result, failed_throughout
from nasfuse.searching.limits import Limits
from nasfuse.searching.promise import promise
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.rungs import Ladder
from nasfuse.searching.study import Study
from nasfuse.searching.worker import Job

OVERTIME = 1.1  # running jobs may finish after the time limit, up to this share of it
FINAL_SHARE = 0.2  # of the time limit at least, in which nothing new is proposed
LONGEST_END = 0.5  # of the time limit at most: short searches are for trying networks as well
FINALS_SHARE = 0.3  # of the time limit at most, for training the finalists again


@dataclass
class Progress:
    """Where a search stands; listeners get it after each change and must not alter it."""

    study: Study
    limits: Limits
    results: list[Result]
    running: dict[str, tuple[Job, int, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    stopping: str | None = None
    notices: list[str] = field(default_factory=list)  # what went wrong and did no lasting harm
    listening: str = ""  # where the search can be reached
    broken: Exception | None = None  # what kept a result or a proposal from being recorded
    part_of: Study | None = None  # the study that these trainings are for, where they have a folder
    before: int = field(init=False)  # results of earlier runs of the study

    def __post_init__(self) -> None:
        self.before = len(self.results)

    @property
    def home(self) -> Study:
        """The study that is held meanwhile, and can be asked to stop."""
        return self.part_of or self.study

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds to the time limit, where there is one."""
        limit = self.limits.seconds
        return None if limit is None else max(0.0, limit - self.seconds)

    @property
    def failing(self) -> bool:
        """Whether so many jobs of this run failed in a row that it cannot be the networks."""
        recent = self.results[max(self.before, len(self.results) - MAX_FAILURES_IN_A_ROW) :]
        return bool(failed_throughout(recent))

    @property
    def room(self) -> float:
        """Seconds that a job begun now may take."""
        limit, left = self.limits.seconds, self.left
        return math.inf if limit is None or left is None else left + (OVERTIME - 1) * limit


Listener = Callable[[Progress], None]


class Work(Protocol):
    """What workers ask for jobs, and tell what came of them."""

    progress: Progress
    workers: int

    def next(self) -> Job | None:
        """The next job; None when there is none, for now or for good."""

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more will."""

    def keep(self) -> None:
        """Put on the disk what is begun; called when no worker waits, and before a result."""

    def take(self, result: Result) -> None:
        """Hear of a result, which is on the disk."""


class Schedule:
    """What to train next: unfinished work, promotions, new proposals, and the finals."""

    def __init__(self, progress: Progress, proposer: Proposer, workers: int) -> None:
        self.progress, self.proposer, self.workers = progress, proposer, workers
        settings = progress.study.settings
        self.ladder = Ladder(settings.recipe, budget=settings.budget)
        done = {result.step: result for result in progress.results}
        self.waiting: list[Job] = []
        self._untold: list[Result] = []
        for proposal in proposer.unfinished():
            job = Job(proposal.number, proposal.origin, 0, proposal.architecture)
            if result := done.get(job.step):  # recorded, but killed before Optuna was told
                self._tell(job.number, result)
            else:
                self.waiting.append(job)
        self.started = set(done) | {job.step for job in self.waiting}

    def next(self) -> Job | None:
        """The next job; None when there is none, for now or for good."""
        if self.progress.stopping:
            return None
        if self.waiting:
            return self.waiting.pop(0)
        if ahead := self._ahead():
            return self._start(ahead[0])
        return self._propose() if self._wants_more() else None

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more will."""
        if self.progress.running:
            return False
        more = self.waiting or self._wants_more() or self._ahead()
        return bool(self.progress.stopping or not more)

    def keep(self) -> None:
        """Put proposals on the disk, and what came of them."""
        self.proposer.keep()

    def take(self, result: Result) -> None:
        """Tell the sampler of a first rung, which every network reaches: the values compare.

        Of failures once something has succeeded after them. If nothing does, it was not the
        networks' fault, and a resumed search is to try them as if they had not been trained.
        """
        if result.rung == 0:
            self._untold.append(result)
        if not result.broke:
            for one in self._untold:
                self._tell(one.number, one)
            self._untold.clear()

    def _tell(self, number: int, result: Result) -> None:
        found = None if result.accuracy is None else promise(result, self.ladder.recipe)
        self.proposer.tell(number, value=found, cost=result.cost)

    def _ahead(self) -> list[Job]:
        """What is to be done with networks that were tried, the longest first.

        The best of a band go up a rung, at the end at least its best one. Then the finalists
        are trained again, and a search by the clock fills what time is left with the next best.
        """
        if self._wants_more():
            return self._jobs(self._due(0))
        if ahead := self._jobs(self._due(1)):
            return ahead
        if again := self._finals():
            sure = self._sure()
            return [job for job in again if job.key in sure]
        if self.progress.limits.seconds is None:
            return []
        return self._jobs(self.ladder.following(self.progress.results, self.started))

    def _due(self, least: int) -> list[Result]:
        """Who is to go up a rung now.

        At the end the best hand-made network is among them, for the others to be compared with.
        """
        results, started = self.progress.results, self.started
        ahead = self.ladder.promotable(results, started, least=least)
        if least:
            best = self.ladder.best_reference(results, started)
            ahead += [result for result in best if result not in ahead]
        return ahead

    def _jobs(self, ahead: list[Result]) -> list[Job]:
        """Of each network the next rung, where it can be expected to reach the top in time."""
        chosen = [result for result in ahead if self.ladder.seconds(result) <= self.progress.room]
        # the longest first, by what they compute: measured times would differ between two runs
        chosen.sort(key=lambda result: result.macs * self.ladder.left(result), reverse=True)
        return [Job(r.number, r.origin, r.rung + 1, r.architecture) for r in chosen]

    def _finals(self) -> list[Job]:
        """Further trainings of the finalists, a round after the other, as time allows.

        The hand-made one comes first: without it nothing can be claimed.
        """
        top = self.ladder.recipe.top
        found = sorted(finalists(self.progress.results, top), key=lambda r: not r.is_reference)
        jobs = [
            Job(result.number, result.origin, top, result.architecture, repeat)
            for repeat in range(1, REPEATS + 1)
            for result in found
            if self.ladder.seconds_again(result) <= self.progress.room
        ]
        return [job for job in jobs if job.step not in self.started]

    def _sure(self) -> set[str]:
        """Who stays a finalist whatever comes of the networks that are on their way to the top.

        Each of those can take one place: who is trained again and then displaced was trained in
        vain, and one network more to compare widens all intervals.
        """
        coming = [job for job, *_ in self.progress.running.values() if not job.repeat]
        found = finalists(self.progress.results, self.ladder.recipe.top)
        sure = found[: max(0, FINALISTS - len(coming))]
        if not any(is_reference(job.origin) for job in coming):
            sure += [result for result in found if result.is_reference][:1]
        return {result.key for result in sure}

    def _propose(self) -> Job | None:
        proposal = self.proposer.propose()
        if proposal is None:
            self.progress.notices.append(self.proposer.gave_up or "")
            return None
        return self._start(Job(proposal.number, proposal.origin, 0, proposal.architecture))

    def _start(self, job: Job) -> Job:
        self.started.add(job.step)
        return job

    def _wants_more(self) -> bool:
        """Whether new candidates are still to be proposed.

        The end of a search by the clock is kept for bringing the best of each band to the top and
        for the finals.
        """
        limits, left = self.progress.limits, self.progress.left
        if self.proposer.gave_up or (
            limits.trials is not None and self.proposer.proposed >= limits.trials
        ):
            return False
        if limits.seconds is None or left is None:
            return True
        return left > self._reserve(limits.seconds)

    def _reserve(self, limit: float) -> float:
        """Seconds that the end of a search takes, within bounds."""
        results = self.progress.results
        needed = [self.ladder.seconds(result) for result in self._due(1)]
        promotions = sum(needed) / self.workers + max(needed, default=0.0) / 2
        again = [self.ladder.seconds_again(r) for r in finalists(results, self.ladder.recipe.top)]
        finals = min(REPEATS * sum(again) / self.workers, FINALS_SHARE * limit)
        return min(max(promotions + finals, FINAL_SHARE * limit), LONGEST_END * limit)
