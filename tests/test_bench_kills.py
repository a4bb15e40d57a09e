"""A short run of the benchmark that kills searches; it exits with 1 where anything went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_kills.py"


@pytest.mark.slow
def test_three_kills_lose_and_repeat_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--trials", "5", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    if not found["wrong"].pop("late"):  # which a busy machine may be
        assert run.returncode == 0, run.stdout + run.stderr
    assert found["kills"] >= 3
    assert not any(found["wrong"].values()), found["notes"]
