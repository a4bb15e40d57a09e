"""What stands still is ended: a process by its watchdog, a trial after three attempts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest

from nasfuse.data.load import load_dataset
from nasfuse.results import Step, read_results
from nasfuse.searching import lookout
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.storage import Storage
from nasfuse.searching.watchdog import HEAD, last_words, watched
from nasfuse.searching.worker import stuck_path
from nasfuse.space import load_space

Descendant = Callable[[int, str], psutil.Process | None]
STARTING = "ray::ResourceTrainable.__init__"  # a worker that has not begun to work

WATCHED = """
import sys, time
from pathlib import Path
from nasfuse.searching.watchdog import Watchdog

dog, path = Watchdog(), Path(sys.argv[1])
with dog.watch(path):
    for _ in range(4):
        time.sleep(1.2)  # longer in all than it waits
        dog.alive()
time.sleep(2.5)  # nobody watches
with dog.watch(path):
    print("watched", flush=True)
    def stand_still():
        time.sleep(60)
    stand_still()
"""


def test_a_process_lives_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rung0.stuck"
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)],
        env={**os.environ, "NASFUSE_PATIENCE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "watched\n", run.stderr
    assert run.returncode == 1
    assert last_words(path).startswith("Timeout")
    assert "stand_still" in last_words(path)


def test_a_watched_process_says_who_it_is_and_where_it_crashed(tmp_path: Path) -> None:
    path = tmp_path / "rung0.stuck"
    code = (
        "import ctypes, os, sys; from pathlib import Path\n"
        "from nasfuse.searching.watchdog import Watchdog, watched\n"
        "path = Path(sys.argv[1])\n"
        "with Watchdog().watch(path):\n"
        "    print(watched(path).process == os.getpid(), flush=True)\n"
        "    ctypes.string_at(0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert run.stdout == "True\n", run.stderr
    assert run.returncode == -signal.SIGSEGV
    assert last_words(path).startswith("Fatal Python error: Segmentation fault")
    assert watched(tmp_path / "none") is None


@pytest.fixture
def few(tmp_path: Path) -> list[str]:
    """How a small search on a few images of digits is asked for."""
    digits = load_dataset("digits", side=8, seed=0).train
    images = np.asarray(digits.images)[:200].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "few.npz", images=images, labels=np.asarray(digits.labels)[:200])
    return ["--budget", "300kFLOPs", "--data", "few.npz", "--name", "s"]


def begun(folder: Path, *program: str, patience: int) -> subprocess.Popen[str]:
    """A program of Python in whose search a worker may stand still for so many seconds."""
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        env={**os.environ, "NASFUSE_PATIENCE": str(patience)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_worker_that_stands_still_fails_its_trial_and_nothing_else(
    tmp_path: Path, few: list[str], quick: list[str]
) -> None:
    """The second network's checkpoint is a pipe that nobody writes to: reading it never ends."""
    digits = load_dataset("digits", side=8, seed=0)
    space = load_space("default").for_images(channels=digits.channels, classes=len(digits.classes))
    (tmp_path / "alike").mkdir()
    alike = Proposer(
        Storage(tmp_path / "alike" / "study.db"), space, budget=300_000, sampler="guided", seed=0
    )
    proposals = [alike.propose(), alike.propose()]
    assert proposals[0] is not None
    assert proposals[1] is not None
    folder = tmp_path / "studies" / "s"
    trial = folder / "trials" / proposals[1].architecture.key
    search = ["-m", "nasfuse", "search", *few, *quick, "--workers", "1", "--trials", "2"]
    with begun(tmp_path, *search, patience=10) as process:
        while process.poll() is None and not (folder / "study.yaml").exists():
            time.sleep(0.01)
        trial.mkdir(parents=True)  # long before the first worker has started
        os.mkfifo(trial / "rung0.ckpt")
        said = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, said
    results = {result.number: result for result in read_results(folder / "results.jsonl")}
    assert results[0].key == proposals[0].architecture.key
    assert [results[number].status for number in (0, 1)] == ["complete", "failed"]
    assert "nothing moved" in str(results[1].cause)
    assert "load_checkpoint" in (trial / "rung0.stuck").read_text()
    assert "failed" in said


QUICK_LOOKOUT = """
from nasfuse.searching import lookout
lookout.START = 12.0
from nasfuse.cli.app import main
main()
"""


# of one network, what the worker is handed takes images of two channels; these have one
ONE_RAISES = """
from nasfuse.searching.worker import Job
whole = Job.to_config
def to_config(job):
    config = whole(job)
    if job.number == 20:
        config["architecture"] = config["architecture"].replace('"channels": 1', '"channels": 2')
    return config
Job.to_config = to_config
"""


@pytest.mark.slow
def test_two_workers_do_all_and_one_that_is_stopped_is_noticed_from_outside(
    tmp_path: Path, few: list[str]
) -> None:
    """Trials take less time than a process to start, and yet none starts but these and one more.

    Nor does one start after a network whose forward pass raises: that fails, and all others end.
    """
    search = ["-c", ONE_RAISES + QUICK_LOOKOUT, "search", *few, "--trials", "60", "--workers", "2"]
    seen: set[int] = set()
    stopped: psutil.Process | None = None
    with begun(tmp_path, *search, patience=10) as process:
        results, folder = tmp_path / "studies/s/results.jsonl", tmp_path / "studies/s/trials"
        while process.poll() is None:
            at_work = {w.process: path for path in folder.glob("*/*.stuck") if (w := watched(path))}
            seen |= at_work.keys()
            if stopped is None and at_work and results.exists() and len(read_results(results)) > 8:
                stopped = psutil.Process(next(iter(at_work)))
                stopped.suspend()
            time.sleep(0.01)
        said = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, said
    assert stopped is not None
    assert not stopped.is_running()
    assert len(seen) == 3, "two workers, and one in the place of the one that was stopped"
    [failed] = [result for result in read_results(results) if result.status == "failed"]
    assert failed.number == 20
    assert "channels" in str(failed.cause)


@pytest.mark.slow
def test_a_worker_that_is_stopped_before_its_first_step_is_ended_and_replaced(
    tmp_path: Path, few: list[str], quick: list[str], descendant: Descendant
) -> None:
    """There its own watchdog has not begun, and no file says who it is."""
    search = ["-c", QUICK_LOOKOUT, "search", *few, *quick, "--trials", "1", "--workers", "1"]
    stopped: psutil.Process | None = None
    with begun(tmp_path, *search, patience=4) as process:
        while process.poll() is None:
            if stopped is None and (stopped := descendant(process.pid, STARTING)):
                stopped.suspend()
            time.sleep(0.01)
        said = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, said
    assert stopped is not None
    assert not stopped.is_running()
    results = read_results(tmp_path / "studies/s/results.jsonl")
    assert {result.status for result in results} == {"complete"}


@pytest.mark.parametrize(
    ("words", "before", "after", "cause"),
    [
        ("", 3, 3, "not by this machine for want of memory"),
        ("", 3, 5, "killed 2 processes for want of memory"),
        ("", None, None, "killed for want of memory?"),
        ("Fatal Python error: Bus error\n\nStack", 0, 0, "Fatal Python error: Bus error"),
        ("Timeout (0:10:00)!\n", 0, 0, "nothing moved"),
        (lookout.SILENT, 0, 0, "its worker gave no sign of life"),
    ],
)
def test_causes_of_death_say_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, before: int, after: int, cause: str
) -> None:
    counts = tmp_path / "vmstat"
    counts.write_text(f"pgfault 77\noom_kill {after}\n" if after is not None else "pgfault 77\n")
    monkeypatch.setattr(lookout, "MEMORY", counts)
    task, job = SimpleNamespace(trials=tmp_path), SimpleNamespace(step=Step("key", 0))
    path = stuck_path(cast("Any", task), cast("Any", job))
    path.parent.mkdir()
    path.write_text(" " * HEAD + words)
    assert cause in lookout.cause_of_death(cast("Any", task), cast("Any", job), before)
    assert path.exists() == bool(words)
