"""Running: a search from its study's folder to the end, on Ray, stoppable by a signal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nasfuse.data.batches import Normalisation
from nasfuse.data.dataset import Dataset
from nasfuse.errors import NasfuseError, SearchError, SetupError, StorageError
from nasfuse.pickles import NO_PICKLES
from nasfuse.searching.admission import (
    MODE,
    listening_line,
    open_cluster,
    own_listeners,
    require_token,
)
from nasfuse.searching.logbook import log
from nasfuse.searching.proposing import Bounds, Proposer
from nasfuse.searching.schedule import (
    MAX_FAILURES_IN_A_ROW,
    Limits,
    Listener,
    Progress,
    Schedule,
    Work,
)
from nasfuse.searching.storage import storage_of
from nasfuse.searching.study import Study
from nasfuse.searching.swapping import FixedJobs, swaps_of
from nasfuse.searching.worker import Job, Task
from nasfuse.stopping import stop_at_once


@dataclass(frozen=True)
class Resources:
    """How many jobs run at once, the GPU share of each, and the cluster to join.

    None: what the cluster has, which only who has joined it knows.
    """

    workers: int | None
    gpus_per_trial: float | None = 0.0
    address: str | None = None


def run_search(
    study: Study, dataset: Dataset, *, limits: Limits, resources: Resources, listen: Listener
) -> Progress:
    """Train until trials or time are used up, or until stopped; results are in the study.

    Raises:
        SearchError: many jobs in a row failed.
        SetupError: Ray cannot be started or joined.
        StorageError: a result could not be recorded; nothing more was started then.
    """
    settings = study.settings
    progress = Progress(study, limits, study.recover())
    proposer = Proposer(
        storage_of(study),
        settings.search_space,
        budget=settings.budget,
        sampler=settings.sampler,
        seed=settings.seed,
        bounds=Bounds(settings.max_params, settings.front_from),
    )
    proposer.catch_up(progress.results)

    def plan(workers: int) -> Work:
        return Schedule(progress, proposer, workers)

    _run_jobs(progress, dataset, plan, resources=resources, listen=listen)
    _raise_what_ended(progress, again=f"nasfuse resume {shlex.quote(settings.name)}")
    return progress


def run_swaps(
    study: Study,
    dataset: Dataset,
    jobs: Sequence[Job],
    *,
    limits: Limits,
    resources: Resources,
    listen: Listener,
) -> Progress:
    """Train what a list says and the study's folder of swaps does not have yet, in its order.

    Raises:
        SearchError, SetupError, StorageError: as `run_search`.
    """
    swaps = swaps_of(study)
    (swaps.folder / "trials").mkdir(parents=True, exist_ok=True)
    progress = Progress(swaps, limits, swaps.recover(), part_of=study)
    if FixedJobs(progress, jobs, workers=1).finished:
        return progress

    def plan(workers: int) -> Work:
        return FixedJobs(progress, jobs, workers)

    _run_jobs(progress, dataset, plan, resources=resources, listen=listen, paired=True)
    _raise_what_ended(progress, again=f"nasfuse explain {shlex.quote(study.settings.name)}")
    return progress


def _run_jobs(
    progress: Progress,
    dataset: Dataset,
    plan: Callable[[int], Work],
    *,
    resources: Resources,
    listen: Listener,
    paired: bool = False,
) -> None:
    """Train all that is planned for so many workers, on Ray."""
    study, settings = progress.study, progress.study.settings
    listen(progress)
    # twice, for Ray takes SIGTERM to itself when it starts
    with _signals(progress), _ray(resources) as (workers, share), _signals(progress):
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


GPU_SHARE = 0.25  # of a GPU that a trial gets where it is neither said nor measured
_ENVIRONMENT = {
    **NO_PICKLES,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray's monitor would end the whole run, not only the worker that takes too much
    "RAY_memory_monitor_refresh_ms": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # seconds between two copies of all that Ray knows, to go on from: the study has that
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "OMP_NUM_THREADS": "1",
    # what PyTorch's layer above oneDNN keeps of operators, by itself 1024 of 0.25 MB each: the next
    # network has other shapes. Below this many a step takes longer, and not above. oneDNN's own
    # cache must hold all the operators of a step, up to 320 in small networks, and takes little
    "LRU_CACHE_CAPACITY": "64",
}

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
ANSWER = 30.0  # seconds in which a cluster has to answer
_KNOCK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    print("refused")
"""


@contextmanager
def _ray(resources: Resources) -> Iterator[tuple[int, float]]:
    """Ray on this machine, or joined; quiet, without dashboard, with token authentication.

    Gives the number of workers and the GPU share of each.
    """
    with _environment({**_ENVIRONMENT, **require_token(resources.address)}):
        import ray  # slow to import, and it reads the environment then
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        # the token of a search before this one, which Ray would keep as long as the process lives
        AuthenticationTokenLoader.instance().reset_cache()
        if resources.address:
            _join(resources.address)
        else:
            _start(resources.workers)
        try:
            yield _of_cluster(resources, ray.cluster_resources())
        finally:
            ray.shutdown()


def _start(workers: int | None) -> None:
    import ray

    try:
        with _alone():
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **_QUIET)
    except Exception as error:  # Ray's are of any type: a plain one where its processes start late
        raise SetupError(
            "Ray cannot be started on this machine",
            why=_reason(error),
            fix="the same command again, where the machine was busy; else nasfuse doctor",
        ) from None


def _join(asked: str) -> None:
    import ray
    from ray._private import services

    try:
        # once for all that follows: of several clusters, "auto" may mean another one each time
        address = services.canonicalize_bootstrap_address_or_die(asked)
        if _lets_in_anybody(address):
            raise open_cluster(address)
        ray.init(address=address, **_QUIET)
    except NasfuseError:
        raise
    except Exception as error:
        raise SetupError(
            "the Ray cluster cannot be joined",
            where=f"--ray-address {asked}",
            why=_reason(error),
            fix="ray status --address ADDRESS   shows whether it answers",
        ) from None


def _lets_in_anybody(address: str) -> bool:
    """Whether the cluster answers somebody who comes without a token.

    Asked by a process of its own, for Ray reads its mode once in each, and before anything is sent
    there with the token. Only a clear refusal is one.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _KNOCK, address],
            env={**os.environ, MODE: "disabled"},
            capture_output=True,
            text=True,
            timeout=ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"nothing has answered at {address} within {ANSWER:g} s") from None
    if done.returncode:
        raise ConnectionError((done.stderr.strip().splitlines() or ["it does not answer"])[-1])
    return done.stdout.split()[-1:] != ["refused"]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for this process and those it starts, and afterwards what there was before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _alone() -> Iterator[None]:
    """Let Ray start for this machine only: on the loopback address, and asking nobody outside.

    By itself it listens on every interface, looks for the one that leads to 8.8.8.8, and starts
    three processes that have nothing to do here: that of the dashboard, without a dashboard, which
    asks clouds for their metadata; one that would add machines; one that carries logs. Its setting
    against the first two is read only when it is imported; against the third there is none.
    """
    from ray._private import node, ray_constants

    def leave_out(self: Any, **unused: object) -> None:
        """Start nothing."""

    left_out = ("start_api_server", "start_monitor", "start_log_monitor")
    before = {name: getattr(node.Node, name) for name in left_out}
    cluster, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    for name in left_out:
        setattr(node.Node, name, leave_out)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        for name, start in before.items():
            setattr(node.Node, name, start)


def _of_cluster(resources: Resources, total: Mapping[str, float]) -> tuple[int, float]:
    """Workers and GPU share as asked for, else a worker a core or four a GPU, not measured."""
    cpus, gpus = int(total.get("CPU", 1)), total.get("GPU", 0.0)
    share = resources.gpus_per_trial
    if share is None:
        share = GPU_SHARE if gpus else 0.0
    room = int(gpus / share) if share else cpus
    return resources.workers or max(1, min(cpus, room)), share


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
