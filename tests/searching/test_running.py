from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from nasfuse.errors import SetupError
from nasfuse.searching.cluster import Resources, _of_cluster, on_ray
from nasfuse.searching.running import _signals

Descendant = Callable[[int, str], psutil.Process | None]


@pytest.mark.parametrize(
    ("asked", "total", "found"),
    [
        (Resources(None, None, "auto"), {"CPU": 64.0, "GPU": 8.0}, (32, 0.25)),
        (Resources(None, None, "auto"), {"CPU": 6.0, "GPU": 8.0}, (6, 0.25)),
        (Resources(None, None, "auto"), {"CPU": 64.0}, (64, 0.0)),
        (Resources(None, 1.0, "auto"), {"CPU": 64.0, "GPU": 8.0}, (8, 1.0)),
        (Resources(3, None, "auto"), {"CPU": 64.0, "GPU": 8.0}, (3, 0.25)),
        (Resources(None, 0.0, "auto"), {"CPU": 64.0, "GPU": 8.0}, (64, 0.0)),
        (Resources(2), {"CPU": 2.0}, (2, 0.0)),
    ],
)
def test_workers_are_as_many_as_the_cluster_holds(
    asked: Resources, total: dict[str, float], found: tuple[int, float]
) -> None:
    assert _of_cluster(asked, total) == found


def test_a_sigterm_that_ray_answers_is_a_sigterm() -> None:
    """Ray's handler, which exits with the signal's number, is in force while Ray starts."""
    progress: Any = SimpleNamespace(stopping=None)
    with _signals(progress):
        sys.exit(signal.SIGTERM)
    assert progress.stopping == "SIGTERM"
    with pytest.raises(SystemExit), _signals(progress):
        sys.exit(1)


STARTED = """
from pathlib import Path
from nasfuse.searching.cluster import Resources, on_ray

with on_ray(Resources(1)):
    caught = next(s for s in Path("/proc/self/status").read_text().splitlines() if "SigCgt" in s)
    print(caught.split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which signals are caught")
def test_ray_takes_no_signal_in_c() -> None:
    """A SIGTERM that its handler sees while Ray starts would abort the search 3 seconds later."""
    run = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, check=True
    )
    caught = int(run.stdout, 16)
    assert caught >> (signal.SIGTERM - 1) & 1, "by Python"
    assert not caught >> (signal.SIGTRAP - 1) & 1, (
        "which faulthandler leaves alone, and Ray does not"
    )


WORKING = """
from nasfuse.searching.cluster import Resources, on_ray

with on_ray(Resources(1)):
    import ray
    print("it has begun", flush=True)
    ray.get(ray.remote(lambda: None).remote())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which program was begun")
def test_a_worker_that_was_just_starting_ends_with_a_killed_search(descendant: Descendant) -> None:
    """By itself it looks for its server for half a minute and more."""
    with subprocess.Popen([sys.executable, "-c", WORKING], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"it has begun\n"
        while (worker := descendant(driver.pid, "default_worker.py")) is None:
            assert driver.poll() is None
            time.sleep(0.01)
        driver.kill()
        worker.wait(timeout=15)  # raises where it is still there


def test_a_ray_that_starts_too_slowly_is_no_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on busy machines; Ray then raises what has no type of its own."""

    def slow(**unused: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    with pytest.raises(SetupError, match="cannot be started") as caught, on_ray(Resources(1)):
        pytest.fail("it was started")
    assert "timed out during startup" in caught.value.why
    assert caught.value.exit_code == 5
