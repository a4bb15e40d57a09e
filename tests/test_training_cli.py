"""`nasfuse train` and `nasfuse export` from outside: a kill, what follows it, and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasfuse.architecture import Architecture

COMMAND = [sys.executable, "-m", "nasfuse"]

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path: Path, architecture: Architecture) -> Path:
    """A folder with an architecture and with photos in three classes, divided in three."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 6), ("test", 6)):
        for label, name in enumerate(("top", "mid", "low")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 60, (24, 24), dtype=np.uint8)
                pixels[8 * label : 8 * label + 8] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "a.json").write_text(architecture.to_json())
    return tmp_path


def nasfuse(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_a_killed_training_goes_on_and_is_exported(work: Path) -> None:
    arguments = ["train", "a.json", "--data", "photos", "--out", "t", "--seeds", "2"]
    arguments += ["--epochs", "20"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=work, stdout=subprocess.PIPE) as killed:
        deadline = time.monotonic() + 120
        while not (work / "t" / "seed1.ckpt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    before = {path.name for path in (work / "t").iterdir()}
    assert "trained.json" not in before
    run = nasfuse(*arguments, "--json", cwd=work)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert len(document["runs"]) == 2
    assert all(len(one["epochs"]) == 20 for one in document["runs"])
    assert document["test"]["images"] == 18
    assert document["test"]["mean"] > 0.8
    assert not [name for name in os.listdir(work / "t") if "tmp" in name or "ckpt" in name]
    again = nasfuse(*arguments, cwd=work)
    assert "epoch 1" not in again.stdout, "nothing is trained twice"
    done = nasfuse("export", "t", "--out", "net", "--format", "python", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "full training, 20 epochs" in done.stdout
    photo = work / "photos" / "test" / "mid" / "0.png"
    command = [sys.executable, "-I", "net/model.py", str(photo)]
    said = subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout
    assert said.removeprefix(f"{photo}: ").startswith("'mid' ")


def test_a_polite_kill_ends_with_its_own_code(work: Path) -> None:
    arguments = ["train", "a.json", "--data", "photos", "--out", "t", "--epochs", "5000"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with subprocess.Popen(
            [*COMMAND, *arguments], cwd=work, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            while "epoch" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(number)
            process.stdout.read()
        assert process.returncode == code


MISTAKES = {
    "no such network": (["train", "none"], 2, "none"),
    "no images": (["train", "a.json"], 2, "--data sample"),
    "no place": (["train", "a.json", "--data", "photos"], 2, "--out"),
    "no study": (["export", "best", "--out", "x"], 2, "there is no study yet"),
    "nothing trained": (["export", "a.json", "--out", "x"], 2, "nasfuse train"),
    "no such format": (["export", "best", "--out", "x", "--format", "onx"], 2, "--format"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(
    work: Path, name: str, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments, code, said = MISTAKES[name]
    run = cli(*arguments, cwd=work)
    assert run.returncode == code, run.stderr
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert {path.name for path in work.iterdir()} == {"a.json", "photos"}
