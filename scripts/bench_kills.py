"""Kill searches at random moments, resume them, and count what was lost.

    python scripts/bench_kills.py [--kills 100] [--signal KILL|TERM|INT] [--a-search 10] [--seed 0]
        [--trials 10] [--json]

Small real searches (two workers, a thousand images of digits) are killed after times drawn at
random: while they import, while Ray starts, in training, between two trials. Then they are resumed,
and killed again; after `--a-search` kills a search may end, and another one begins. After every
kill and at the end it is checked that

    lost        no line of results.jsonl is gone or altered, and all that was said to have ended
                is there
    repeated    no evaluation is there twice
    unreadable  a checkpoint that a worker would go on from is whole
    set back    no trial's checkpoint has fewer epochs than at the kill before, so that a kill
                costs a trial at most the epoch that was running
    orphans     no process of the search is left after 30 s
    unfinished  at the end every network has its result, in Optuna's database and in MLflow too

SIGTERM and Ctrl-C have to end in 30 s with exit code 143 or 130 and the line to go on with. Shown
are the seconds until all processes were gone, and from a resumption to the first new epoch. Ctrl-C
ends the benchmark early, with what was found until then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nasfuse.checkpoints import load_checkpoint
from nasfuse.data.load import load_dataset
from nasfuse.errors import StorageError
from nasfuse.results import Result, read_results

NAME, IMAGES = "killed", 1000
ASKED = ["--budget", "500kFLOPs", "--workers", "2", "--data", "few.npz", "--name", NAME]
CODES = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130}
GRACE = 30.0  # seconds in which everything has to be gone
LONGEST = 10.0  # seconds from the first new epoch of a run, or from its start, to the kill
EARLY = 0.25  # of the kills are counted from the start
PATIENCE = 600.0  # seconds for a whole search on a busy machine
MARK = "NASFUSE_BENCH_KILLS"  # in the environment of all processes of a search


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


class Search:
    """One search in a folder of its own, killed and resumed."""

    def __init__(self, folder: Path, trials: int, found: Found) -> None:
        self.folder, self.trials, self.found = folder, trials, found
        self.study = folder / "studies" / NAME
        self.mark = f"{os.getpid()}-{found.searches}"
        self.known: list[Result] = []
        self.epochs: dict[Path, tuple[int, int]] = {}
        folder.mkdir()
        digits = load_dataset("digits", side=8, seed=0).train
        images = np.asarray(digits.images)[:IMAGES].transpose(0, 2, 3, 1)
        np.savez(folder / "few.npz", images=images, labels=np.asarray(digits.labels)[:IMAGES])

    def start(self) -> subprocess.Popen[str]:
        begun = (self.study / "study.yaml").exists()
        words = ["resume", NAME] if begun else ["search", *ASKED, "--trials", str(self.trials)]
        return subprocess.Popen(
            [sys.executable, "-m", "nasfuse", *words],
            cwd=self.folder,
            env={**os.environ, MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, number: signal.Signals, delay: float, *, early: bool) -> bool:
        """Kill it `delay` seconds after its start or its first new epoch; False where it ended."""
        began, before = time.monotonic(), self._newest()
        process = self.start()
        kill_at = began + delay if early else None
        while process.poll() is None:
            now = time.monotonic()
            if kill_at is None and self._newest() > before:
                self.found.first_epoch.append(now - began)
                kill_at = now + delay
            if kill_at is not None and now >= kill_at:
                break
            if now > began + PATIENCE:
                self.found.fault("unfinished", "nothing happens")
                break
            time.sleep(0.02)
        ended = process.poll() is not None
        if not ended:
            self.found.kills += 1
            process.send_signal(number)
        self._check_end(process, number, ended=ended)
        self._check_files()
        return not ended

    def _check_end(
        self, process: subprocess.Popen[str], number: signal.Signals, *, ended: bool
    ) -> None:
        began = time.monotonic()
        while (left := list(self._processes())) and time.monotonic() < began + GRACE:
            time.sleep(0.1)
        self.found.gone.append(time.monotonic() - began)
        for orphan in left:
            self.found.fault("orphans", f"{orphan.pid} {' '.join(orphan.cmdline()[:3])[:80]}")
            orphan.kill()
        said = process.communicate()[0]
        expected = 0 if ended else CODES[number.name[3:]]
        # a signal may come when all is done, or before anybody listens for it
        if process.returncode not in (expected, 0, -number):
            self.found.fault("exit code", f"{process.returncode}: {said[-300:]}")
        if process.returncode in (130, 143) and f"nasfuse resume {NAME}" not in said:
            self.found.fault("exit code", f"no line to go on with: {said[-300:]}")
        self._check_said(said)

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != "zombie":
                    yield process
            except psutil.Error:  # it has ended, or is not ours
                continue

    def _results(self) -> list[Result]:
        path = self.study / "results.jsonl"
        if not path.exists():
            return []
        text = path.read_bytes()
        whole = self.folder / "whole.jsonl"  # a resumed search removes a last line that was cut
        whole.write_bytes(text[: text.rfind(b"\n") + 1])
        return read_results(whole)

    def _check_said(self, said: str) -> None:
        lines = sum(" trial " in line and " rung " in line for line in said.splitlines())
        new = len(self._results()) - len(self.known)
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
        for path in self.study.glob("trials/*/*.ckpt"):
            if not path.stem.endswith(".previous"):
                self._check_checkpoint(path)

    def _check_checkpoint(self, path: Path) -> None:
        try:
            checkpoint = load_checkpoint(path)
        except StorageError as error:
            self.found.fault("unreadable", str(error))
            return
        assert checkpoint is not None
        reached = int(checkpoint.state["rung"]), int(checkpoint.state["done"])
        if reached < self.epochs.get(path, (0, 0)):
            self.found.fault("set back", f"{path.parent.name}: {self.epochs[path]} to {reached}")
        self.epochs[path] = reached

    def _newest(self) -> float:
        """When a checkpoint or a result was last written."""
        written = [*self.study.glob("trials/*/*.ckpt"), *self.study.glob("trials/*/rung*.json")]
        times = []
        for path in written:
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:  # replaced or removed just now
                continue
        return max(times, default=0.0)

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


def kill_searches(options: argparse.Namespace) -> Found:
    generator, found = random.Random(options.seed), Found()
    number = signal.Signals[f"SIG{options.signal}"]
    with tempfile.TemporaryDirectory() as folder:
        while found.kills < options.kills:
            found.searches += 1
            search = Search(Path(folder) / str(found.searches), options.trials, found)
            last = min(options.kills, found.kills + options.a_search)
            try:
                while found.kills < last:
                    early = generator.random() < EARLY
                    if not search.run(number, generator.uniform(0, LONGEST), early=early):
                        break
                    print(f"kill {found.kills}: {dict(found.wrong)}", file=sys.stderr, flush=True)
                else:
                    search.run(number, PATIENCE, early=True)  # to its end
            except KeyboardInterrupt:
                return found
            search.check_all()
    return found


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 1) if seconds else 0.0,
        "largest": round(max(seconds, default=0.0), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=sorted(CODES), default="KILL")
    parser.add_argument("--a-search", type=int, default=10)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = kill_searches(options)
    kinds = ("lost", "repeated", "unreadable", "set back", "orphans", "unfinished", "exit code")
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "kills": found.kills,
        "searches": found.searches,
        "wrong": {kind: found.wrong[kind] for kind in kinds},
        "notes": found.notes,
        "until all processes were gone (s)": spread(found.gone),
        "resumption to the first new epoch (s)": spread(found.first_epoch),
    }
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}: SIG{options.signal}")
        for name in ("kills", "searches"):
            print(f"  {name:<40} {report[name]}")
        for kind, count in report["wrong"].items():
            print(f"  {kind:<40} {count}")
        for name in ("until all processes were gone (s)", "resumption to the first new epoch (s)"):
            print(
                f"  {name:<40} {report[name]['median']} (median), {report[name]['largest']} at most"
            )
        print("\n".join(found.notes))
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
