"""Cluster: Ray on this machine, started for one search alone and ended with it, or joined."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nasfuse.errors import NasfuseError, SetupError
from nasfuse.fate import command
from nasfuse.pickles import NO_PICKLES
from nasfuse.searching.admission import MODE, open_cluster, require_token

GPU_SHARE = 0.25  # of a GPU that a trial gets where it is neither said nor measured
ENVIRONMENT = {
    **NO_PICKLES,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray's monitor would end the whole run, not only the worker that takes too much
    "RAY_memory_monitor_refresh_ms": "0",
    # its handler in C++ hands a SIGTERM on, but lets the process abort three seconds later
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # seconds between two copies of all that Ray knows, to go on from: the study has that
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # processes for tasks, of which there are none: a worker has one of its own
    "RAY_prestart_worker_first_driver": "0",
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


@dataclass(frozen=True)
class Resources:
    """How many jobs run at once, the GPU share of each, and the cluster to join.

    None: what the cluster has, which only who has joined it knows.
    """

    workers: int | None
    gpus_per_trial: float | None = 0.0
    address: str | None = None


@contextmanager
def on_ray(resources: Resources) -> Iterator[tuple[int, float]]:
    """Ray on this machine, or joined; quiet, without dashboard, with token authentication.

    Gives the number of workers and the GPU share of each.
    """
    with _environment({**ENVIRONMENT, **require_token(resources.address)}):
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
    against the first two is read only when it is imported; against the third there is none. Of two
    others, its agents, it would take a minute to end after the search was killed, and half a minute
    of workers that are just starting (`fate.py`). The agent of the dashboard neither serves nor
    counts, as where what a dashboard needs is not installed.
    """
    from ray._private import node, ray_constants, services, utils

    watched, options = command("RAY_RAYLET_PID"), services._site_flags()

    def leave_out(self: Any, **unused: object) -> None:
        """Start nothing."""

    def agent(*unused: object, **unused_too: object) -> list[str]:
        """What Ray's services put before the path of a program of Python."""
        return watched

    def worker() -> list[str]:
        """What they put between Python and the path of a worker's program: Python's options."""
        return [*options, *watched[1:]]

    def missing() -> ImportError:
        """Why there can be no dashboard."""
        return ImportError("nobody looks at it")

    changes: list[tuple[Any, str, Any]] = [
        (utils, "get_dashboard_dependency_error", missing),
        (ray_constants, "ENABLE_RAY_CLUSTER", False),
        (node.Node, "start_api_server", leave_out),
        (node.Node, "start_monitor", leave_out),
        (node.Node, "start_log_monitor", leave_out),
        (services, "_build_python_executable_command_memory_profileable", agent),
        (services, "_site_flags", worker),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, change in changes:
        setattr(owner, name, change)
    try:
        yield
    finally:
        for owner, name, was in before:
            setattr(owner, name, was)


def _of_cluster(resources: Resources, total: Mapping[str, float]) -> tuple[int, float]:
    """Workers and GPU share as asked for, else a worker a core or four a GPU, not measured."""
    cpus, gpus = int(total.get("CPU", 1)), total.get("GPU", 0.0)
    share = resources.gpus_per_trial
    if share is None:
        share = GPU_SHARE if gpus else 0.0
    room = int(gpus / share) if share else cpus
    return resources.workers or max(1, min(cpus, room)), share
