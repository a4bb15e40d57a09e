"""A small real search that is killed and resumed, and what is checked of it; for bench_kills.py."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from nasfuse.checkpoints import load_checkpoint
from nasfuse.data.load import load_dataset
from nasfuse.errors import StorageError
from nasfuse.results import Result, read_results
from nasfuse.searching.watchdog import watched

NAME, IMAGES = "killed", 1000
ASKED = ["--budget", "500kFLOPs", "--epochs", "4", "--workers", "2", "--data", "few.npz"]
CODES = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130, "INT2": 130, "WORKER": 0}
FIRST = 20.0  # seconds in which a resumed search has to have trained an epoch
STUCK = "trials/*/*.stuck"  # of workers that are at work
GRACE = 30.0  # seconds in which everything has to be gone
AGAIN = 2.0  # seconds at most between the two Ctrl-C of INT2
PATIENCE = 600.0  # seconds for a whole search on a busy machine
MARK = "NASFUSE_BENCH_KILLS"  # in the environment of all processes of a search
SHOWN = re.compile(rb"^\S+ \S+ trial +\d+ rung ", re.MULTILINE)


@dataclass
class Found:
    """What went wrong, by kind, and how long things took."""

    wrong: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    first_epoch: list[float] = field(default_factory=list)
    kills: int = 0
    searches: int = 0

    def fault(self, kind: str, note: str) -> None:
        self.wrong[kind] += 1
        self.notes.append(f"search {self.searches}, kill {self.kills}: {kind}: {note}")

    def tell(self) -> None:
        told = self.notes[-1] if self.notes else ""
        print(f"kill {self.kills}: {dict(self.wrong)} {told}", file=sys.stderr, flush=True)


class Run:
    """One process of a search, in a pseudo-terminal of its own where keys are to be pressed."""

    def __init__(self, words: list[str], folder: Path, mark: str, *, terminal: bool) -> None:
        self.said, self.terminal = b"", terminal
        ours, theirs = os.openpty() if terminal else os.pipe()
        os.set_blocking(ours, False)
        self.end = ours
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nasfuse", *words],
            cwd=folder,
            env={**os.environ, MARK: mark, "TERM": "xterm"},
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=not terminal,
            preexec_fn=_own_terminal if terminal else None,
        )
        os.close(theirs)

    def read(self) -> None:
        """Take in what it wrote meanwhile."""
        with suppress(OSError):  # Linux's way to say that nobody holds the terminal's other end
            while select.select([self.end], [], [], 0)[0]:
                written = os.read(self.end, 65536)
                if not written:
                    return
                self.said += written

    def stop(self, name: str, again: float) -> None:
        """Send a signal, or press Ctrl-C, twice for INT2."""
        if not self.terminal:
            self.process.send_signal(signal.Signals[f"SIG{name}"])
            return
        os.write(self.end, b"\x03")
        if name == "INT2":
            began = time.monotonic()
            while time.monotonic() < began + again:
                self.read()  # what nobody has read when Ctrl-C comes, a terminal drops
                time.sleep(0.01)
            with suppress(OSError):  # it has ended
                os.write(self.end, b"\x03")


def _own_terminal() -> None:
    """Between fork and exec: a session whose terminal is the standard input.

    A shell lets its jobs in the background ignore Ctrl-C, this benchmark among them.
    """
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Search:
    """One search in a folder of its own, killed and resumed."""

    def __init__(self, folder: Path, trials: int, found: Found) -> None:
        self.folder, self.trials, self.found = folder, trials, found
        self.study = folder / "studies" / NAME
        self.mark = f"{os.getpid()}-{found.searches}"
        self.known: list[Result] = []
        self.epochs: dict[Path, tuple[int, int]] = {}  # of checkpoints, when last looked at
        self.waited: dict[Path, int] = {}  # when those were written that are the last of a kill
        self.deaths: Counter[Path] = Counter()  # of workers, by the file of their watchdog
        self.before = 0  # results when it was last started
        self.written: dict[Path, tuple[int, bytes]] = {}  # results of workers, and when
        folder.mkdir()
        digits = load_dataset("digits", side=8, seed=0).train
        images = np.asarray(digits.images)[:IMAGES].transpose(0, 2, 3, 1)
        np.savez(folder / "few.npz", images=images, labels=np.asarray(digits.labels)[:IMAGES])

    def start(self, name: str) -> Run:
        begun, self.before = (self.study / "study.yaml").exists(), len(self.known)
        words = (
            ["resume", NAME]
            if begun
            else ["search", *ASKED, "--name", NAME, "--trials", str(self.trials)]
        )
        return Run(words, self.folder, self.mark, terminal=name.startswith("INT"))

    def run(self, name: str, delay: float, again: float = 0.0, *, early: bool) -> bool:
        """Kill it `delay` seconds after its start or its first new epoch; False where it ended."""
        began, before = time.monotonic(), self._newest()
        resumed = (self.study / "study.yaml").exists()
        run = self.start(name)
        kill_at = began + delay if early else None
        while run.process.poll() is None:
            now = time.monotonic()
            run.read()
            self._check_first_epochs()
            if kill_at is None and self._newest() > before:
                if resumed:
                    self._note_first_epoch(now - began)
                kill_at = now + delay
            if kill_at is not None and now >= kill_at:
                break
            if now > began + PATIENCE:
                self.found.fault("unfinished", "nothing happens")
                break
            time.sleep(0.02)
        ended, listening = run.process.poll() is not None, self._listens(run)
        if not ended:
            self.found.kills += 1
            run.stop(name, again)
        self._check_end(run, name, ended=ended, listening=listening)
        self._check_files()
        return not ended

    def kill_workers(
        self, generator: random.Random, pauses: tuple[float, float], most: int
    ) -> None:
        """Let it run to its end, and kill one of its workers after each pause, `most` at most.

        `pauses` are the shortest and the longest, in seconds.
        """
        began, kill_at, left = time.monotonic(), 0.0, most
        run = self.start("WORKER")
        while run.process.poll() is None:
            now = time.monotonic()
            run.read()
            self._check_first_epochs()
            if not kill_at and self._newest():
                kill_at = now + generator.uniform(*pauses)
            if left and kill_at and now >= kill_at and self._kill_worker(generator):
                left, kill_at = left - 1, now + generator.uniform(*pauses)
                self._check_files()
                self.found.tell()
            if now > began + PATIENCE:
                self.found.fault("unfinished", "nothing happens")
                run.process.kill()
            time.sleep(0.02)
        self._check_end(run, "WORKER", ended=True, listening=False)
        self._check_files()

    def _kill_worker(self, generator: random.Random) -> bool:
        """One of those at work, if any; but not at a job's third attempt, after which it fails."""
        alive = {process.pid: process for process in self._processes()}
        paths = sorted(self.study.glob(STUCK))  # the choice must not depend on the disk's order
        found = [(path, w.process) for path in paths if (w := watched(path))]
        left = [(path, pid) for path, pid in found if pid in alive and self.deaths[path] < 2]
        if not left:
            return False
        path, pid = generator.choice(left)
        with suppress(psutil.Error):  # it has ended just now
            alive[pid].kill()
        self.deaths[path] += 1
        self.found.kills += 1
        return True

    def _note_first_epoch(self, seconds: float) -> None:
        self.found.first_epoch.append(seconds)
        if seconds > FIRST:
            self.found.fault("late", f"{seconds:.1f} s to the first new epoch")

    def _listens(self, run: Run) -> bool:
        """Whether it holds the study, and so has a handler for each signal."""
        with suppress(OSError):
            return (self.study / "study.pid").read_text() == str(run.process.pid)
        return False

    def _check_end(self, run: Run, name: str, *, ended: bool, listening: bool) -> None:
        began = time.monotonic()
        while (left := list(self._processes())) and time.monotonic() < began + GRACE:
            run.read()
            time.sleep(0.1)
        self.found.gone.append(time.monotonic() - began)
        for orphan in left:
            self.found.fault("orphans", str(orphan))
            with suppress(psutil.Error):  # it has ended just now
                orphan.kill()
        code = run.process.wait()
        run.read()
        os.close(run.end)
        # before anybody listens and when all is done a signal may find Python alone, or nobody
        allowed = {0} if ended else {CODES[name]}
        if not (ended or listening):
            allowed |= {0, -signal.SIGTERM, -signal.SIGINT}
        if name == "INT2":  # which is 130 to a shell; the search was at its end
            allowed.add(-signal.SIGINT)
        if code not in allowed:
            self.found.fault("exit code", f"{code}: {run.said[-300:].decode(errors='replace')}")
        elif listening and code in (130, 143, -signal.SIGINT) and b"nasfuse resume" not in run.said:
            said = run.said[-300:].decode(errors="replace")
            self.found.fault("exit code", f"no line to go on with: {said}")
        self._check_said(run.said)

    def _processes(self) -> Iterator[psutil.Process]:
        """Known by where they were started, too: Ray's agents overwrite their environment."""
        here = str(self.folder.resolve())
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self.mark or process.cwd() == here
                if ours and process.status() != "zombie":
                    yield process
            except psutil.Error:  # it has ended, or is not ours
                continue

    def end(self) -> None:
        """End what still runs of it, unchecked."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()

    def _results(self) -> list[Result]:
        path = self.study / "results.jsonl"
        if not path.exists():
            return []
        text = path.read_bytes()
        whole = self.folder / "whole.jsonl"  # a resumed search removes a last line that was cut
        whole.write_bytes(text[: text.rfind(b"\n") + 1])
        return read_results(whole)

    def _check_said(self, said: bytes) -> None:
        lines, new = len(SHOWN.findall(said)), len(self._results()) - self.before
        if lines > new:
            self.found.fault("lost", f"{lines} results were shown, {new} are there")

    def _check_files(self) -> None:
        results = self._results()
        if results[: len(self.known)] != self.known:
            self.found.fault("lost", "results.jsonl does not begin as it did")
        for step, count in Counter(result.step for result in results).items():
            if count > 1:
                self.found.fault("repeated", str(step))
        self.known = results
        self._check_written()
        self._check_first_epochs()
        for path in self.study.glob("trials/*/*.ckpt"):
            if not path.stem.endswith(".previous"):
                self._check_checkpoint(path)
        self.waited = {path: _written(path) for path in self.epochs}

    def _check_written(self) -> None:
        """What a worker has written stays: else its network was trained again."""
        for path in self.study.glob("trials/*/rung*.json"):
            found = path.stat().st_mtime_ns, path.read_bytes()
            if self.written.setdefault(path, found) != found:
                self.found.fault("repeated", f"{path.parent.name}/{path.name} was written again")

    def _check_first_epochs(self) -> None:
        """Of trials that go on after a kill: soon enough to see one that began again at 0."""
        for path, before in list(self.waited.items()):
            if _written(path) not in (before, 0):
                del self.waited[path]
                self._check_checkpoint(path)

    def _check_checkpoint(self, path: Path) -> None:
        try:
            checkpoint = load_checkpoint(path)
        except StorageError as error:
            self.found.fault("unreadable", str(error))
            return
        if checkpoint is None:  # its trial has ended just now
            return
        reached = int(checkpoint.state["rung"]), int(checkpoint.state["done"])
        before = self.epochs.get(path, (0, 0))
        # a network that is promoted goes on, on a higher rung, from the steps that it has
        if reached != before and reached[1] <= before[1]:
            self.found.fault("set back", f"{path.parent.name}: {before} to {reached}")
        self.epochs[path] = reached

    def _newest(self) -> int:
        """When a checkpoint or a result was last written."""
        written = [*self.study.glob("trials/*/*.ckpt"), *self.study.glob("trials/*/rung*.json")]
        return max(map(_written, written), default=0)

    def check_all(self) -> None:
        """After its end: every network is there, and Optuna and MLflow know."""
        networks = {result.key for result in self.known}
        if len(networks) != self.trials or any(r.status != "complete" for r in self.known):
            self.found.fault("unfinished", f"{len(networks)} of {self.trials} networks")
        states = self._count(self.study / "study.db", "select state from trials")
        if states != {"COMPLETE": self.trials}:
            self.found.fault("unfinished", f"Optuna has {dict(states)}")
        shown = self._count(self.study.parent / "mlflow.db", "select status from runs")
        if shown != {"FINISHED": self.trials + 1}:
            self.found.fault("unfinished", f"MLflow has {dict(shown)}")

    @staticmethod
    def _count(path: Path, query: str) -> Counter[str]:
        with sqlite3.connect(path) as database:
            return Counter(row[0] for row in database.execute(query))


def _written(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where it was replaced or removed just now."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0
