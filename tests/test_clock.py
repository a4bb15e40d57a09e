"""A wall clock that jumps by hours and years does a search no harm."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from nasfuse.results import read_results

pytestmark = pytest.mark.slow
TRIALS = 8
JUMPS = (3 * 3600, -48 * 3600, 400 * 86400, -365 * 86400, 0)  # seconds
SEARCH = [sys.executable, "-u", "-m", "nasfuse", "search", "--budget", "1MFLOPs", "--name", "s"]
SEARCH += ["--data", "digits", "--trials", str(TRIALS), "--workers", "2"]


def preloaded(folder: Path) -> Path:
    """A library that moves the clock of whatever is started with it, as `offset` there says."""
    compiler, library = shutil.which("cc"), folder / "clock.so"
    if compiler is None or sys.platform != "linux":
        pytest.skip("a C compiler for Linux moves the clock")
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_jumps_of_the_clock_lose_and_repeat_nothing(tmp_path: Path, quick: list[str]) -> None:
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("q", 0))
    moved = {"LD_PRELOAD": str(preloaded(tmp_path)), "CLOCK_OFFSET": str(offset)}
    jumps = iter(JUMPS)
    with subprocess.Popen(
        # a limit that the largest jump would pass at once if the wall clock were asked
        [*SEARCH, *quick, "--time-limit", "24h"],
        cwd=tmp_path,
        env={**os.environ, **moved},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        assert run.stdout is not None
        said = ""
        for line in run.stdout:
            said += line
            if " rung " in line and (jump := next(jumps, None)) is not None:
                with offset.open("r+b") as file:  # in place: it is mapped
                    file.write(struct.pack("q", jump))
    assert run.returncode == 0, said
    assert next(jumps, None) is None, said

    results = read_results(tmp_path / "studies" / "s" / "results.jsonl")
    steps = Counter(result.step for result in results)
    assert set(steps.values()) == {1}, "none was trained twice"
    assert {result.status for result in results} == {"complete"}
    assert {r.number for r in results if r.rung == 0} == set(range(TRIALS))
    assert all(0 <= result.seconds < 600 for result in results), "no time is a difference of dates"
    days = {datetime.fromisoformat(result.finished).date() for result in results}
    assert len(days) > 2, "the clock did jump"
