"""What a search of thousands of trials asks of the process that drives it.

    python scripts/bench_size.py [--trials 2000] [--at-once 200] [--json]
    python scripts/bench_size.py --real [--trials 500] [--at-once 2] [--json]

The first is simulated where it has to be: 200 worker processes need more memory than most machines
have. Real is everything in the driver: Ray Tune's controller, the schedule with its promotions and
finals, the sampler, study.db, results.jsonl, MLflow and the report. Simulated are the workers: the
same class, but as objects of the driver on a clock of their own, a trial of some seconds each,
in which nothing is trained and accuracies are made up; what they take of the processor is not
counted. So what is left out is Ray's transport between processes.

`--real` leaves nothing out: tiny networks are trained by worker processes of Ray. It ends with exit
code 1 where the driver or the largest worker has more than 5 % more memory at the end than after 50
trials.

A row says, for the trials since the row before: milliseconds a trial that the driver took of the
processor and that passed, what other threads of its process took (MLflow's among them), and what a
proposal took (median); and, when so many trials are finished: the driver's memory, its open files,
the same of the largest worker (medians over the last 20 results, for what it trains counts), and
the sizes of study.db and results.jsonl.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil
import ray
from ray.air.execution._internal.tracked_actor import TrackedActor

from nasfuse import api
from nasfuse.network import cost
from nasfuse.planning import Plan, SearchOptions, plan_search
from nasfuse.recipe import Recipe, Rung
from nasfuse.searching import cluster, proposing
from nasfuse.searching.cluster import ENVIRONMENT, Resources
from nasfuse.searching.schedule import Progress
from nasfuse.searching.worker import Job, Manner, Task, record

SECONDS = 20.0  # of a simulated first rung at the whole budget
MARKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000)
GROWTH = 5.0  # per cent from the first mark to the end, that memory may grow by
SAMPLES = 20  # results before a mark, over which workers are looked at


class Stopwatch:
    """Seconds of a function's calls, in order."""

    def __init__(self, owner: Any, name: str) -> None:
        self.calls: list[float] = []
        function = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.calls.append(time.perf_counter() - began)

        setattr(owner, name, timed)


@dataclass
class Clock:
    """Simulated seconds, and the processor's seconds that went into simulating."""

    now: float = 0.0
    simulating: float = 0.0
    owed: float = 0.0  # seconds that the running step takes


CLOCK = Clock()


class Pretended:
    """What an evaluation is to a worker, without any training."""

    notice = None

    def __init__(self, task: Task, job: Job, retry: str | None = None) -> None:
        self.task, self.job, self.retry = task, job, retry
        self.manner = Manner(task.recipe.at(job.rung).batch, retry)
        self.random = random.Random(f"{job.key} {job.rung} {job.repeat}")
        rung = task.recipe.rungs[job.rung]
        self.epochs, self.at = max(1, round(rung.epochs * rung.stop)), 0
        self.seconds = SECONDS * task.recipe.work(job.rung) / task.recipe.work(0)
        self.seconds *= self.random.uniform(0.2, 1.0)

    @property
    def training(self) -> Any:
        return SimpleNamespace(done=self.at, per_epoch=1)

    @property
    def done(self) -> bool:
        return self.at >= self.epochs

    def epoch(self) -> float:
        self.at += 1
        CLOCK.owed = self.seconds / self.epochs
        return 1.0 / self.at

    def finish(self) -> Any:
        price = cost(self.job.architecture).macs
        accuracy = 0.5 + 0.04 * math.log10(price) + 0.02 * self.job.rung
        accuracy += self.random.gauss(0, 0.01)
        spent = {"seconds": self.seconds, "cpu_seconds": self.seconds}
        losses = {"loss": 1 - accuracy, "calibrated_loss": 1 - accuracy, "train_loss": 1.0}
        scores = {"accuracy": accuracy, **losses}
        return record(self.task, self.job, spent, scores=scores, manner=self.manner)


class InProcess:
    """Ray Tune's manager of actors, with the actors as objects of this process.

    Of what Tune asks for (Ray 2.60), one call after another, in the order of simulated time.
    """

    def __init__(self, resource_manager: Any) -> None:
        del resource_manager
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, None]] = {}
        self._events: list[tuple[float, int, TrackedActor, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.num_pending_actors = self.num_actor_tasks = 0

    @property
    def num_live_actors(self) -> int:
        return len(self._live_actors_to_ray_actors_resources)

    num_total_actors = num_live_actors

    def _after(self, seconds: float, actor: TrackedActor, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (CLOCK.now + seconds, next(self._numbers), actor, event))

    def add_actor(self, cls: Any, kwargs: Any, resource_request: Any, **calls: Any) -> Any:
        del resource_request
        actor = TrackedActor(next(self._numbers), **calls)
        worker = _simulated(lambda: cls.__ray_metadata__.modified_class(**kwargs))
        filled = SimpleNamespace(remote=worker.get_auto_filled_metrics)
        handle = SimpleNamespace(worker=worker, get_auto_filled_metrics=filled)
        self._live_actors_to_ray_actors_resources[actor] = (handle, None)
        self._after(0, actor, lambda: calls["on_start"](actor))
        return actor

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: Any = (),
        kwargs: Any = None,
        on_result: Any = None,
        **unused: Any,
    ) -> None:
        worker = self._live_actors_to_ray_actors_resources[tracked_actor][0].worker
        CLOCK.owed = 0.0
        answer = _simulated(lambda: getattr(worker, method_name)(*args, **(kwargs or {})))
        if on_result:
            self._after(CLOCK.owed, tracked_actor, lambda: on_result(tracked_actor, answer))

    def next(self, timeout: float | None = None) -> bool:
        del timeout
        if not self._events:
            return False
        CLOCK.now, _, _, event = heapq.heappop(self._events)
        event()
        return True

    def remove_actor(
        self, actor: TrackedActor, kill: bool = False, stop_future: Any = None
    ) -> bool:
        self._live_actors_to_ray_actors_resources.pop(actor, None)
        if actor._on_stop:
            self._after(0, actor, lambda: actor._on_stop and actor._on_stop(actor))
        return True

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        self._events = [event for event in self._events if event[2] is not tracked_actor]
        heapq.heapify(self._events)

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        return False

    def get_live_actors_resources(self) -> dict[str, float]:
        return {}

    def cleanup(self) -> None:
        self._events.clear()


def _simulated(work: Callable[[], Any]) -> Any:
    began = time.thread_time()
    try:
        return work()
    finally:
        CLOCK.simulating += time.thread_time() - began


@contextmanager
def simulated_ray(resources: Resources) -> Iterator[tuple[int, float]]:
    """Ray with one processor, for its object store; its workers are in this process."""
    os.environ.update(ENVIRONMENT)
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    from ray.tune.execution import tune_controller

    from nasfuse.searching import trainable

    for module, name, stand_in in (
        (tune_controller, "RayActorManager", InProcess),
        (trainable, "Evaluation", Pretended),
    ):
        setattr(module, name, stand_in)
    try:
        yield resources.workers or 1, 0.0
    finally:
        ray.shutdown()


@dataclass
class Curve:
    """Listens to a search and notes what it has taken when so many trials are finished."""

    marks: list[int]
    proposals: Stopwatch
    folder: Path
    rows: list[dict[str, float]] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    heard: int = 0  # results
    workers: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def __call__(self, progress: Progress) -> None:
        if not self.before:
            self.before = self._totals(0)
        left = self.marks[len(self.rows) :]
        if not left or len(progress.results) < left[0] - SAMPLES:
            return
        finished = sum(result.rung == 0 for result in progress.results)
        if finished >= left[0] - SAMPLES and len(progress.results) > self.heard:
            self.heard = len(progress.results)
            if found := _workers():
                size = max(worker.memory_info().rss for worker in found)
                self.workers.append((size, max(worker.num_fds() for worker in found)))
        if finished >= left[0]:
            self._note(finished)

    def _totals(self, finished: int) -> dict[str, float]:
        driver = time.thread_time()
        return {
            "trials": finished,
            "driver": driver - CLOCK.simulating,
            "others": time.process_time() - driver,
            "wall": time.monotonic() - CLOCK.simulating,
            "proposals": len(self.proposals.calls),
        }

    def _note(self, finished: int) -> None:
        totals, before = self._totals(finished), self.before
        since = {name: totals[name] - before[name] for name in totals}
        count, process = since["trials"], psutil.Process()
        proposals = self.proposals.calls[int(before["proposals"]) :]
        self.rows.append(
            {
                "trials": finished,
                "driver_ms": round(1000 * since["driver"] / count, 1),
                "wall_ms": round(1000 * since["wall"] / count, 1),
                "other_threads_ms": round(1000 * since["others"] / count, 1),
                "proposal_ms": round(1000 * median(proposals), 1) if proposals else math.nan,
                "memory_mb": round(process.memory_info().rss / 1e6, 1),
                "open_files": process.num_fds(),
                **self._of_workers(),
                "study_db_mb": round((self.folder / "study.db").stat().st_size / 1e6, 2),
                "results_mb": round((self.folder / "results.jsonl").stat().st_size / 1e6, 2),
            }
        )
        self.before = totals

    def _of_workers(self) -> dict[str, float]:
        """Memory and open files of the largest; none where workers are simulated."""
        if not self.workers:
            return {}
        size, files = (median(values) for values in zip(*self.workers, strict=True))
        return {"worker_mb": round(size / 1e6, 1), "worker_files": files}


def _workers() -> list[psutil.Process]:
    """Ray's, where there are any."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::")]


def planned(options: argparse.Namespace, studies: Path) -> Plan:
    """A search of so many trials; tiny networks on small images where they are trained."""
    asked = SearchOptions(
        "1M" if options.real else "4M",
        data="digits" if options.real else "sample",
        trials=options.trials,
        workers=options.at_once,
        sampler=options.sampler,
        name="size",
        studies=studies,
    )
    plan = plan_search(asked)
    if not options.real:
        return plan
    recipe = Recipe(rungs=(Rung(share=0.05, epochs=1), Rung(share=0.1, epochs=1)))
    return plan._replace(settings=plan.settings.model_copy(update={"recipe": recipe}))


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """By how many per cent memory has grown from the first row to the last."""
    names = {"driver": "memory_mb", "largest worker": "worker_mb"}
    first, last = rows[0], rows[-1]
    return {
        who: round(100 * (last[name] / first[name] - 1), 1)
        for who, name in names.items()
        if name in first
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """A search of so many trials: its curve, and how it ended."""
    if not options.real:
        cluster.on_ray = simulated_ray
    proposals = Stopwatch(proposing.Proposer, "propose")
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(options, Path(folder))
        marks = [mark for mark in MARKS if mark < options.trials]
        curve = Curve([*marks, options.trials], proposals, plan.folder)
        began = time.monotonic()
        outcome = api.start(plan, listen=curve)
        return {
            "trainings": len(outcome.progress.results),
            "failed": sum(r.status == "failed" for r in outcome.progress.results),
            "seconds": round(time.monotonic() - began, 1),
            "mlflow": outcome.view_problem or "shows all",
            "rows": curve.rows,
            "growth_percent": growth(curve.rows),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--sampler", default="guided")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.trials = options.trials or (500 if options.real else 2000)
    options.at_once = options.at_once or (2 if options.real else 200)
    load = os.getloadavg()[0]
    found = measured(options)
    where = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before"
    head = {"schema_version": 1, "machine": where, "python": platform.python_version()}
    asked = {"workers": "real" if options.real else "simulated", **vars(options)}
    if options.json:
        print(json.dumps({**head, "asked": asked, **found}, indent=2))
    else:
        show(found, f"{where}; {options.at_once} {asked['workers']} workers, {options.sampler}")
    sys.exit(options.real and max(found["growth_percent"].values()) > GROWTH)


def show(found: dict[str, Any], head: str) -> None:
    print(head)
    print("  ".join(found["rows"][0]))
    for row in found["rows"]:
        print("  ".join(f"{value:>{len(name)}}" for name, value in row.items()))
    about = {name: value for name, value in found.items() if name not in ("rows", "growth_percent")}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    grown = ", ".join(f"{who} {percent:+.1f} %" for who, percent in found["growth_percent"].items())
    print(f"memory from {found['rows'][0]['trials']} trials to the end: {grown}")


if __name__ == "__main__":
    main()
