"""A program shares its parent's fate, and otherwise runs as if nothing watched it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from nasfuse.searching import fate

PROGRAM = """
import neighbour, sys, time
print(__name__, sys.argv[1:], neighbour.FOUND, flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
words = [sys.executable, *sys.argv[1:], "--a", "b"]
child = subprocess.Popen(words, env={**os.environ, "RAY_RAYLET_PID": str(os.getpid())})
print(child.pid, flush=True)
child.wait()
"""


def test_a_program_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "neighbour.py").write_text("FOUND = 1")
    words = [sys.executable, "-c", PARENT, str(fate.__file__), str(tmp_path / "program.py")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        program = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "__main__ ['--a', 'b'] 1\n"
        assert program.is_running()
        parent.kill()
        program.wait(timeout=30)  # raises where it is still there
