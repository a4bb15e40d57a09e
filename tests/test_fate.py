"""A program shares its parent's fate, and otherwise runs as if nothing watched it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nasfuse.fate import command
from nasfuse.tracking import Tracker, local_uri

PROGRAM = """
import neighbour, sys, time
print(__name__, sys.argv[1:], neighbour.FOUND, flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], env={**os.environ, "PARENT": str(os.getpid())})
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("module", [False, True], ids=["file", "module"])
def test_a_program_ends_when_its_parent_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: bool
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "neighbour.py").write_text("FOUND = 1")
    if module:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = ["-m", "program"] if module else [str(tmp_path / "program.py")]
    words = [sys.executable, "-c", PARENT, *command("PARENT"), *program, "--a", "b"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "__main__ ['--a', 'b'] 1\n"
        assert child.is_running()
        parent.kill()
        child.wait(timeout=30)  # raises where it is still there


SERVE = """
import sys, time
from pathlib import Path
from nasfuse.serving import serve

serve(sys.argv[1], Path("artifacts"))
print("it answers", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_no_server_of_mlflow_is_left_when_the_program_is_killed(tmp_path: Path) -> None:
    """As `kill -9` of `nasfuse ui`: it and its workers are in a session of their own."""
    uri = local_uri(tmp_path)
    Tracker.open(uri, artifacts=tmp_path / "artifacts", study="s", identity="s", settings={}).close(
        "FINISHED"
    )
    words = [sys.executable, "-c", SERVE, uri]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "it answers\n"
        started = psutil.Process(program.pid).children(recursive=True)
        assert len(started) >= 2
        program.kill()
        assert not psutil.wait_procs(started, timeout=30)[1]
