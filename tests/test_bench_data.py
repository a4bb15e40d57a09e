"""The benchmark of data runs, and its rows see the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_data.py"


@pytest.mark.slow
def test_a_few_images() -> None:
    command = [sys.executable, str(SCRIPT), "--images", "100", "--pixels", "40", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert list(found["rows"]) == ["nasfuse cold", "nasfuse warm", "DataLoader"]
    for figures in found["rows"].values():
        assert figures["first batch (s)"] <= figures["first epoch (s)"]
        assert figures["memory (MB)"] > 0
