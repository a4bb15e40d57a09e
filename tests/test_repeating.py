"""Two searches of one seed with one worker are the same search, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasfuse.data.load import load_dataset
from nasfuse.results import Result, read_results

pytestmark = pytest.mark.slow
ASKED = "--budget 300kFLOPs --data few.npz --trials 13 --workers 1 --seed 5 --quiet"
CHANCE = {"seconds", "cpu_seconds", "finished"}  # what no seed decides


def searched(folder: Path, name: str, *words: str) -> list[Result]:
    command = [sys.executable, "-m", "nasfuse", "search", "--name", name, *ASKED.split(), *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return read_results(folder / "studies" / name / "results.jsonl")


def without_chance(results: list[Result]) -> list[dict[str, Any]]:
    return [result.model_dump(exclude=CHANCE) for result in results]


def test_the_same_seed_gives_the_same_front(tmp_path: Path, quick: list[str]) -> None:
    digits = load_dataset("digits", side=8, seed=0).train
    images, labels = np.asarray(digits.images)[:250], np.asarray(digits.labels)[:250]
    np.savez(tmp_path / "few.npz", images=images.transpose(0, 2, 3, 1), labels=labels)
    one, other = (searched(tmp_path, name, *quick) for name in ("one", "other"))
    assert {result.origin for result in one} >= {"all-add", "guided"}
    assert {result.rung for result in one} == {0, 1, 2}
    assert without_chance(one) == without_chance(other)
