"""The benchmarks of GPUs and of memory run, on a CPU and tiny; their figures mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nasfuse.architecture import Architecture

SCRIPTS = Path(__file__).parent.parent / "scripts"


def figures(script: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / script), *words, "--device", "cpu", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.slow
def test_all_tables_of_a_gpu(tmp_path: Path, architecture: Architecture) -> None:
    file = tmp_path / "a.json"
    file.write_text(architecture.to_json())
    words = "--data digits --kinds residual --macs 300K --together 1,2 --epochs 1 --seconds 0.1"
    network = ["--no-resnet", "--architecture", str(file)]
    tables = figures("bench_training.py", *words.split(), *network)["tables"]
    [speed] = tables["speed"]
    assert speed["gain"] == pytest.approx(speed["graphs"] / speed["without"])
    assert [row["at once"] for row in tables["packing"]] == [1, 2]
    [trained] = tables["accuracy"]
    assert trained["network"] != architecture.key, "it has the classes of the images"
    assert 0 < trained["test accuracy"] < 1
    assert trained["an hour"] == pytest.approx(3600 / trained["seconds"])


@pytest.mark.slow
def test_memory_with_and_without_recomputation() -> None:
    [row] = figures("bench_memory.py", "--depths", "6", "--batch", "64")["rows"]
    assert row["layers"] == 18
    assert row["recomputed"]["peak"] < row["plain"]["peak"] < row["estimate"]
