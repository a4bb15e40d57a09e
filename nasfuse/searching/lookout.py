"""Lookout: notices from outside what became of workers: one that stands still, one that died."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune

from nasfuse.searching.schedule import Progress
from nasfuse.searching.watchdog import HEAD, OFTEN, PATIENCE, last_words, watched
from nasfuse.searching.worker import Job, Task, stuck_path

LATER = 1.5  # times as long as a worker waits for itself
START = 60.0  # seconds more, in which a worker imports torch and images are copied to it
ASLEEP = 10.0  # seconds without a look, after which this process itself must have been stopped
SILENT = "no sign of life"
MEMORY = Path("/proc/vmstat")


class Lookout(tune.Callback):  # type: ignore[misc]
    """Ends workers that their own watchdog cannot end: stopped altogether, or before it began.

    `end` ends the process that a job has, by the job's name at Ray, on whatever machine it is.
    """

    def __init__(self, progress: Progress, task: Task, end: Callable[[str], None]) -> None:
        self.progress, self.task, self.end = progress, task, end
        # the last sign of life of each job, and when it was new
        self._signs: dict[str, tuple[tuple[int, int], float]] = {}
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **unused: Any) -> None:
        """Look at what runs, every second or so."""
        before, now = self._looked, time.monotonic()
        if now - before < OFTEN:
            return
        self._looked = now
        if now - before > ASLEEP:
            self._signs.clear()
        running = self.progress.running
        self._signs = {name: sign for name, sign in self._signs.items() if name in running}
        for name, (job, epoch, _) in running.items():
            self._look(name, stuck_path(self.task, job), epoch, now)

    def _look(self, name: str, path: Path, epoch: int, now: float) -> None:
        found = watched(path)  # none before its first step, and between two
        sign = epoch, found.last if found else 0
        last, since = self._signs.get(name, (None, now))
        if last != sign:
            self._signs[name] = sign, now
        elif now - since > LATER * (found.patience if found else PATIENCE) + START:
            with suppress(OSError):  # it is for a message only
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b" " * HEAD + SILENT.encode())
            self.end(name)
            del self._signs[name]  # its next attempt has all that time again


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
    if words == SILENT:
        return "its worker gave no sign of life for a long time, three times, and was ended"
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
