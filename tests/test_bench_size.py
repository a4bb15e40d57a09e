"""The benchmark of size stands in for parts of Ray Tune: they must still be what it expects."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_size.py"


@pytest.mark.slow
def test_a_small_search_with_simulated_workers_goes_the_whole_way(tmp_path: Path) -> None:
    asked = ["--trials", "14", "--at-once", "5", "--sampler", "random", "--json"]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["mlflow"] == "shows all"
    assert not found["failed"]
    assert found["trainings"] > 14  # promotions and finals, too
    [row] = found["rows"]
    assert row["trials"] == 14
    assert row["proposal_ms"] > 0
    assert row["open_files"] > 10
    assert found["growth_percent"]["driver"] == 0


def test_growth_is_that_of_the_driver_and_the_largest_worker() -> None:
    rows = [{"memory_mb": 400.0, "worker_mb": 300.0}, {}, {"memory_mb": 404.0, "worker_mb": 330.0}]
    growth = runpy.run_path(str(SCRIPT))["growth"]
    assert growth(rows) == {"driver": 1.0, "largest worker": 10.0}
