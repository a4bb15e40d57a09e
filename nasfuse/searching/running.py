"""Running: a search from its study's folder to the end, on Ray, stoppable by a signal."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nasfuse.costs import enough_for, show_macs
from nasfuse.data.batches import Normalisation
from nasfuse.data.dataset import Dataset
from nasfuse.errors import BudgetError, NasfuseError, SearchError, StorageError
from nasfuse.files import write_bytes
from nasfuse.results import MAX_FAILURES_IN_A_ROW, Result, failed_throughout
from nasfuse.searching import cluster
from nasfuse.searching.admission import listening_line, own_listeners
from nasfuse.searching.extremes import reachable
from nasfuse.searching.limits import Limits
from nasfuse.searching.logbook import log
from nasfuse.searching.proposing import Bounds, Proposer
from nasfuse.searching.schedule import Listener, Progress, Schedule, Work
from nasfuse.searching.storage import storage_of
from nasfuse.searching.study import Settings, Study
from nasfuse.searching.swapping import FixedJobs, swaps_of
from nasfuse.searching.worker import Job, Task
from nasfuse.stopping import stop_at_once


def run_search(
    study: Study,
    dataset: Dataset,
    *,
    limits: Limits,
    resources: cluster.Resources,
    listen: Listener,
) -> Progress:
    """Train until trials or time are used up, or until stopped; results are in the study.

    Raises:
        SearchError: many jobs in a row failed.
        SetupError: Ray cannot be started or joined.
        StorageError: a result could not be recorded; nothing more was started then.
    """
    settings = study.settings
    progress = Progress(study, limits, _results_so_far(study))
    proposer = Proposer(
        storage_of(study),
        settings.search_space,
        budget=settings.budget,
        sampler=settings.sampler,
        seed=settings.seed + len(progress.results),  # other numbers, also where study.db was lost
        bounds=Bounds(settings.max_params, settings.front_from),
    )
    proposer.catch_up(progress.results)

    def plan(workers: int) -> Work:
        return Schedule(progress, proposer, workers)

    _run_jobs(progress, dataset, plan, resources=resources, listen=listen)
    if not progress.broken:
        proposer.keep()
    _raise_what_ended(progress, again=f"nasfuse resume {shlex.quote(str(study.folder))}")
    if proposer.gave_up and not proposer.proposed:
        raise _hardly_any(settings, proposer.gave_up)
    return progress


def run_swaps(
    study: Study,
    dataset: Dataset,
    jobs: Sequence[Job],
    *,
    limits: Limits,
    resources: cluster.Resources,
    listen: Listener,
) -> Progress:
    """Train what a list says and the study's folder of swaps does not have yet, in its order.

    Raises:
        SearchError, SetupError, StorageError: as `run_search`.
    """
    swaps = swaps_of(study)
    (swaps.folder / "trials").mkdir(parents=True, exist_ok=True)
    progress = Progress(swaps, limits, _results_so_far(swaps), part_of=study)
    if FixedJobs(progress, jobs, workers=1).finished:
        return progress

    def plan(workers: int) -> Work:
        return FixedJobs(progress, jobs, workers)

    _run_jobs(progress, dataset, plan, resources=resources, listen=listen, paired=True)
    _raise_what_ended(progress, again="give the same `nasfuse explain` again")
    return progress


def _hardly_any(settings: Settings, why: str) -> BudgetError:
    """Of limits that some network meets, and so few that none was found."""
    costs = sorted(reachable(settings.search_space).smallest)
    enough = costs[len(costs) // 4]
    return BudgetError(
        f"hardly any network of the space '{settings.space_name}' is within these limits",
        where=f"--budget {show_macs(settings.budget)}",
        why=f"{why}; a quarter of the space can be scaled down to {show_macs(enough)} MACs",
        fix=enough_for(enough) + ("   and more --max-params" if settings.max_params else ""),
        needed=enough,
    )


def _results_so_far(study: Study) -> list[Result]:
    """What was kept, less the failures of a run that ended for nothing but failed.

    It was not the networks' fault, so they are trained again.
    """
    results = study.recover()
    failures = failed_throughout(results)
    if not failures:
        return results
    path = study.folder / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    write_bytes(path, b"".join(lines[: -len(failures)]))
    for one in failures:
        (study.trial(one.key) / f"{one.step.stem}.json").unlink(missing_ok=True)
    return results[: -len(failures)]


def _run_jobs(
    progress: Progress,
    dataset: Dataset,
    plan: Callable[[int], Work],
    *,
    resources: cluster.Resources,
    listen: Listener,
    paired: bool = False,
) -> None:
    """Train all that is planned for so many workers, on Ray."""
    study, settings = progress.study, progress.study.settings
    listen(progress)
    # twice, for Ray takes SIGTERM to itself when it starts
    with _signals(progress), cluster.on_ray(resources) as (workers, share), _signals(progress):
        from nasfuse.searching.tuning import tune_jobs  # Ray reads the environment on import

        progress.listening = listening_line(own_listeners())
        log.info(progress.listening)
        listen(progress)

        task = Task(
            trials=(study.folder / "trials").resolve(),
            # workers on this machine map files; those of a cluster get them through Ray
            dataset=dataset.in_memory() if resources.address else dataset,
            normalisation=Normalisation(settings.mean, settings.std),
            recipe=settings.recipe,
            seed=settings.seed,
            gpus=share,
            workers=workers,
            objective=settings.objective,
            max_latency=None if paired else settings.max_latency,
            paired=paired,
        )
        tune_jobs(plan(workers), task, gpus_per_trial=share, listen=listen)


def _raise_what_ended(progress: Progress, *, again: str) -> None:
    """The error that ended a run before its time, if one did."""
    study, broken = progress.study, progress.broken
    fix = f"mend the cause, then: {again}"
    if isinstance(broken, NasfuseError):
        raise broken
    if broken is not None:
        why = f"{type(broken).__name__}: {broken}"[:300]
        raise StorageError(
            "what the search does cannot be recorded", where=str(study.folder), why=why, fix=fix
        ) from broken
    if progress.failing:
        raise SearchError(
            f"the last {MAX_FAILURES_IN_A_ROW} networks failed in training",
            where=str(study.folder / "results.jsonl"),
            why=progress.results[-1].cause or "",
            fix=fix,
        )


@contextmanager
def _signals(progress: Progress) -> Iterator[None]:
    """The first Ctrl-C stops after the running steps, SIGTERM or a second Ctrl-C at once.

    Outside the main thread, where Python does not allow it, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        del frame
        if progress.stopping:
            stop_at_once(number)
        progress.stopping = signal.Signals(number).name

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as end:  # Ray's answer to a SIGTERM, until the handlers are ours again
        if end.code != signal.SIGTERM:
            raise
        progress.stopping = "SIGTERM"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
