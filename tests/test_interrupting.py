"""A search in a terminal of its own: Ctrl-C once, twice, and `nasfuse stop` from elsewhere."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasfuse.results import read_results

pty = pytest.importorskip("pty", reason="needs a system with pseudo-terminals")
pytestmark = pytest.mark.slow
DEADLINE = 240.0


class Terminal:
    """`nasfuse` in a pseudo-terminal; `screen` is all that it wrote."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.screen = b""
        self.process, self.end = pty.fork()
        if self.process == 0:
            os.chdir(cwd)
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, [sys.executable, "-m", "nasfuse", *arguments])

    def read(self, seconds: float) -> bool:
        """Whether it goes on; takes in what it wrote meanwhile."""
        if not select.select([self.end], [], [], seconds)[0]:
            return True
        try:
            written = os.read(self.end, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        self.screen += written
        return bool(written)

    def wait_for(self, words: bytes) -> None:
        deadline = time.monotonic() + DEADLINE
        while words not in self.screen:
            assert self.read(1.0), self.screen.decode()
            assert time.monotonic() < deadline, self.screen.decode()

    def press_ctrl_c(self) -> None:
        os.write(self.end, b"\x03")

    def exit_code(self) -> int:
        deadline = time.monotonic() + DEADLINE
        while self.read(1.0):
            assert time.monotonic() < deadline, self.screen.decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_stopping_keeps_what_was_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    results = tmp_path / "studies" / "s" / "results.jsonl"
    limits = ["--trials", "60", "--workers", "1"]
    first = Terminal("search", "--budget", "1MFLOPs", "--name", "s", *limits, cwd=tmp_path)
    first.wait_for(b"1 trained")
    first.press_ctrl_c()
    assert first.exit_code() == 130
    said = first.screen.decode()
    assert "stopping after the running steps" in said
    assert "nasfuse resume s" in said
    assert "^C" not in said
    assert "Traceback" not in said
    done = read_results(results)
    assert done

    second = Terminal("resume", *limits, cwd=tmp_path)
    second.wait_for(b"running")
    second.press_ctrl_c()
    second.wait_for(b"stopping after")
    second.press_ctrl_c()
    assert second.exit_code() == 130
    said = second.screen.decode()
    assert "Traceback" not in said
    assert "nasfuse resume" in said
    assert read_results(results)[: len(done)] == done

    third = Terminal("resume", *limits, cwd=tmp_path)
    third.wait_for(b"running")
    asked = [sys.executable, "-m", "nasfuse", "stop"]
    run = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"process {third.process}" in run.stdout
    assert third.exit_code() == 130
    assert "nasfuse resume s" in third.screen.decode()
    assert read_results(results)[: len(done)] == done
