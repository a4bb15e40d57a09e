"""What stands still is ended: a process by its watchdog, a trial after three attempts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasfuse.data.load import load_dataset
from nasfuse.results import read_results
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.storage import Storage
from nasfuse.searching.watchdog import stuck
from nasfuse.space import load_space

WATCHED = """
import sys, time
from pathlib import Path
from nasfuse.searching.watchdog import Watchdog

dog, path = Watchdog(), Path(sys.argv[1])
with dog.watch(path):
    for _ in range(4):
        time.sleep(1.2)  # longer in all than it waits
        dog.alive()
time.sleep(2.5)  # nobody watches
with dog.watch(path):
    print("watched", flush=True)
    def stand_still():
        time.sleep(60)
    stand_still()
"""


def test_a_process_lives_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rung0.stuck"
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)],
        env={**os.environ, "NASFUSE_PATIENCE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "watched\n", run.stderr
    assert run.returncode == 1
    assert stuck(path)
    assert "stand_still" in path.read_text()


@pytest.mark.slow
def test_a_worker_that_stands_still_fails_its_trial_and_nothing_else(tmp_path: Path) -> None:
    """The second network's checkpoint is a pipe that nobody writes to: reading it never ends."""
    environment = {**os.environ, "NASFUSE_PATIENCE": "4"}
    folder = tmp_path / "studies" / "s"
    digits = load_dataset("digits", side=8, seed=0)
    images = np.asarray(digits.train.images)[:200].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "few.npz", images=images, labels=np.asarray(digits.train.labels)[:200])
    asked = ["--budget", "300kFLOPs", "--data", "few.npz", "--workers", "1", "--name", "s"]

    def nasfuse(*words: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "nasfuse", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    nasfuse("search", *asked, "--trials", "1")
    space = load_space("default").for_images(channels=digits.channels, classes=len(digits.classes))
    (tmp_path / "again").mkdir()
    again = Proposer(
        Storage(tmp_path / "again" / "study.db"), space, budget=300_000, sampler="guided", seed=0
    )
    proposals = [again.propose(), again.propose()]
    assert proposals[0] is not None
    assert proposals[1] is not None
    assert read_results(folder / "results.jsonl")[0].key == proposals[0].architecture.key
    trial = folder / "trials" / proposals[1].architecture.key
    trial.mkdir()
    os.mkfifo(trial / "rung0.ckpt")
    said = nasfuse("resume", "s", "--trials", "2")
    results = {result.number: result for result in read_results(folder / "results.jsonl")}
    assert [results[number].status for number in (0, 1)] == ["complete", "failed"]
    assert "nothing moved" in str(results[1].cause)
    assert "load_checkpoint" in (trial / "rung0.stuck").read_text()
    assert "failed" in said
