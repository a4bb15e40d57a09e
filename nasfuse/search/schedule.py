"""What to train next, and where a search stands; nothing here knows Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nasfuse.results import Result
from nasfuse.search.proposing import Proposer
from nasfuse.search.rungs import Ladder
from nasfuse.search.study import Study
from nasfuse.search.worker import Job

MAX_FAILURES_IN_A_ROW = 8
OVERTIME = 1.25  # running jobs may finish after the time limit, up to this share of it


@dataclass(frozen=True)
class Limits:
    """When a search ends: after so many networks, or so many seconds; None is no limit."""

    trials: int | None
    seconds: float | None


@dataclass
class Progress:
    """Where a search stands; listeners get it after each change and must not alter it."""

    study: Study
    limits: Limits
    results: list[Result]
    running: dict[str, tuple[Job, int, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    stopping: str | None = None

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
        """Whether so many jobs in a row failed that it cannot be the networks."""
        recent = self.results[-MAX_FAILURES_IN_A_ROW:]
        return len(recent) == MAX_FAILURES_IN_A_ROW and all(r.status == "failed" for r in recent)


Listener = Callable[[Progress], None]


class Schedule:
    """What to train next: unfinished work first, then promotions, then new proposals."""

    def __init__(self, progress: Progress, proposer: Proposer, workers: int) -> None:
        self.progress, self.proposer, self.workers = progress, proposer, workers
        settings = progress.study.settings
        self.ladder = Ladder(settings.recipe, budget=settings.budget)
        done = {(r.key, r.rung): r for r in progress.results}
        self.waiting: list[Job] = []
        for proposal in proposer.unfinished():
            job = Job(proposal.number, proposal.origin, 0, proposal.architecture)
            if result := done.get((job.key, 0)):  # recorded, but killed before Optuna was told
                proposer.tell(job.number, accuracy=result.accuracy, macs=result.macs)
            else:
                self.waiting.append(job)
        self.started = set(done) | {(job.key, 0) for job in self.waiting}
        self.exhausted = False

    def next(self) -> Job | None:
        """The next job, or None while or when there is none."""
        if self.progress.stopping:
            return None
        if self.waiting:
            return self.waiting.pop(0)
        last = not self._wants_more()
        for result in self.ladder.promotable(self.progress.results, self.started, last=last):
            if self._in_time(self.ladder.seconds(result)):
                return self._start(
                    Job(result.number, result.origin, result.rung + 1, result.architecture)
                )
        return None if last else self._propose()

    def _propose(self) -> Job | None:
        proposal = self.proposer.propose()
        if proposal is None:
            self.exhausted = True
            return None
        return self._start(Job(proposal.number, proposal.origin, 0, proposal.architecture))

    def _start(self, job: Job) -> Job:
        self.started.add((job.key, job.rung))
        return job

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing more will."""
        return not self.progress.running and self.next_is_none()

    def next_is_none(self) -> bool:
        if self.progress.stopping:
            return True
        last = not self._wants_more()
        ahead = self.ladder.promotable(self.progress.results, self.started, last=last)
        promotable = any(self._in_time(self.ladder.seconds(result)) for result in ahead)
        return last and not self.waiting and not promotable

    def _wants_more(self) -> bool:
        """Whether new candidates are still to be proposed."""
        trials = self.progress.limits.trials
        if self.exhausted or (trials is not None and self.proposer.proposed >= trials):
            return False
        left = self.progress.left
        return left is None or left > self._reserve()

    def _reserve(self) -> float:
        """Seconds kept free to bring the best of each band to the top before time is over."""
        results = self.progress.results
        ahead = self.ladder.promotable(results, self.started, last=True)
        needed = [self.ladder.seconds(result) for result in ahead]
        proposal = max((r.seconds for r in results if r.rung == 0), default=0.0)
        return sum(needed) / self.workers + max(needed, default=0.0) / 2 + proposal

    def _in_time(self, seconds: float) -> bool:
        left = self.progress.left
        limit = self.progress.limits.seconds
        return left is None or limit is None or seconds <= left + (OVERTIME - 1) * limit
