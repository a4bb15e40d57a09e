"""Lookout: notices from outside what became of workers: one that stands still, one that died."""

from __future__ import annotations

import os
import platform
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ray import tune

from nasfuse.searching.schedule import Progress
from nasfuse.searching.watchdog import OFTEN, PATIENCE, last_words, watched
from nasfuse.searching.worker import Job, Task, result_path

LATER = 1.5  # times as long as a worker waits for itself
ASLEEP = 10.0  # seconds without a look, after which this process itself must have been stopped
SILENT = "Timeout: it gave no sign of life at all, and was ended from outside\n"
MEMORY = Path("/proc/vmstat")


def stuck_path(task: Task, job: Job) -> Path:
    """Where a worker's watchdog writes while it trains a job."""
    return result_path(task, job.step).with_suffix(".stuck")


class Lookout(tune.Callback):  # type: ignore[misc]
    """Ends workers of this machine that their own watchdog cannot end, being stopped altogether."""

    def __init__(self, progress: Progress, task: Task) -> None:
        self.progress, self.task = progress, task
        self._signs: dict[Path, tuple[int, float]] = {}  # the last one of each, and when it was new
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Look at what runs, every second or so."""
        before, now = self._looked, time.monotonic()
        if now - before < OFTEN:
            return
        self._looked = now
        if now - before > ASLEEP:
            self._signs.clear()
        running = [stuck_path(self.task, job) for job, *_ in self.progress.running.values()]
        self._signs = {path: self._signs[path] for path in running if path in self._signs}
        for path in running:
            self._look(path, now)

    def _look(self, path: Path, now: float) -> None:
        found = watched(path)
        if found is None:
            return
        last, since = self._signs.get(path, (0, now))
        if last != found.last:
            self._signs[path] = found.last, now
        elif now - since > LATER * found.patience and found.host == platform.node():
            with suppress(OSError, psutil.Error):  # it has ended by itself
                if psutil.Process(found.process).cmdline()[0].startswith("ray::"):
                    with path.open("a") as file:
                        file.write(SILENT)
                    os.kill(found.process, signal.SIGKILL)


def killed_for_memory() -> int | None:
    """How many processes this machine's kernel has ended for want of memory; None: not known."""
    with suppress(OSError):
        for line in MEMORY.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None


def cause_of_death(task: Task, job: Job, killed_before: int | None) -> str:
    """What is known of a worker that died in all attempts at a job.

    `killed_before` is what `killed_for_memory` said before them.
    """
    path, killed = stuck_path(task, job), killed_for_memory()
    words = last_words(path)
    if words.startswith("Timeout"):
        return f"nothing moved for {PATIENCE:g} s or more, three times; {path.name} has the stack"
    if words:
        return f"its worker died three times: {words.splitlines()[0]}; {path.name} has the stack"
    path.unlink(missing_ok=True)
    died = "its worker died three times"
    if killed is None or killed_before is None:
        return f"{died} (killed for want of memory?)"
    if count := killed - killed_before:
        return f"{died}; meanwhile the system killed {count} processes for want of memory"
    return f"{died}: killed, for it did not crash, and not by this machine for want of memory"
