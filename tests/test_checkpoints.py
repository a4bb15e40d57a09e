"""Checkpoints under kills and damage: a whole one is chosen, and what was wrong is said."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasfuse.architecture import Architecture
from nasfuse.checkpoints import MAX_BYTES, load_checkpoint, remove_checkpoint, save_checkpoint
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.errors import StorageError
from nasfuse.files import sweep
from nasfuse.recipe import Recipe, Rung
from nasfuse.results import Result
from nasfuse.searching.worker import Evaluation, Job, Task

# one process imports torch and forks the writers, for an import takes longer than all the rest
FORKING = """
import os, signal, sys, time
from pathlib import Path
import torch
from nasfuse.checkpoints import load_checkpoint, remove_checkpoint, save_checkpoint
path = Path(sys.argv[1])
torch.set_num_threads(1)
for line in sys.stdin:
    number, pause = int(line.split()[0]), float(line.split()[1])
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        while True:
            number += 1
            tensor = torch.full((2000,), float(number))
            save_checkpoint(path, {"number": number, "tensor": tensor})
            os.write(writing, b"%d\\n" % number)
    os.close(writing)
    told = os.read(reading, 65536)  # on a busy machine it may be long until it begins
    time.sleep(pause)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    told += os.fdopen(reading, "rb").read()
    print(int(told.split()[-1]), flush=True)
"""


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "rung0.ckpt"
    for number in (1, 2):
        save_checkpoint(path, {"number": number, "tensor": torch.arange(50)})
    return path


def test_the_newest_is_loaded_and_nothing_is_said(saved: Path) -> None:
    found = load_checkpoint(saved)
    assert found is not None
    assert (found.state["number"], found.notice) == (2, None)
    remove_checkpoint(saved)
    assert load_checkpoint(saved) is None
    assert not list(saved.parent.iterdir())


def test_every_flipped_bit_and_every_cut_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for offset in random.Random(0).sample(range(len(whole)), 40):
        for damage in (flip, cut):
            saved.write_bytes(whole)
            damage(saved, offset)
            found = load_checkpoint(saved)
            assert found is not None
            assert found.state["number"] == 1
            assert found.notice is not None
            assert "rung0.ckpt" in found.notice


def test_a_missing_newest_gives_the_previous_one(saved: Path) -> None:
    """A kill between the two renames leaves it so."""
    saved.unlink()
    found = load_checkpoint(saved)
    assert found is not None
    assert found.state["number"] == 1


def test_where_none_is_whole_both_are_named(saved: Path) -> None:
    for path in list(saved.parent.iterdir()):
        cut(path, 100)
    with pytest.raises(StorageError) as caught:
        load_checkpoint(saved)
    assert "rung0.ckpt" in caught.value.why
    assert "rung0.previous.ckpt" in caught.value.why


def test_a_damaged_newest_never_takes_the_place_of_the_previous_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After going on from the previous one: whatever becomes of the next, a whole one is left."""
    flip(saved, 500)
    save_checkpoint(saved, {"number": 3})
    flip(saved, 500)
    found = load_checkpoint(saved)
    assert found is not None
    assert found.state["number"] == 1

    def cut_off(descriptor: int) -> None:
        raise OSError(errno.EIO, "the power was cut")

    save_checkpoint(saved, {"number": 4})
    monkeypatch.setattr(os, "fsync", cut_off)
    with pytest.raises(StorageError):
        save_checkpoint(saved, {"number": 5})
    found = load_checkpoint(saved)
    assert found is not None
    assert (found.state["number"], found.notice) == (4, None), "nothing is renamed before the sync"


def test_one_that_goes_while_it_is_looked_for_counts_as_absent(saved: Path) -> None:
    """As where another process ends the training of the same network."""
    whole = saved.rename(saved.with_name("whole"))
    remove_checkpoint(saved)
    code = "import os, sys\nwhile True: os.link(*sys.argv[1:]), os.unlink(sys.argv[2])"
    with subprocess.Popen([sys.executable, "-I", "-c", code, str(whole), str(saved)]) as other:
        try:
            end = time.monotonic() + 1
            found = set()
            while time.monotonic() < end:
                found.add(load_checkpoint(saved) is None)
        finally:
            other.kill()
    assert found == {True, False}


def test_what_is_too_large_or_no_file_is_not_read(saved: Path) -> None:
    os.truncate(saved, MAX_BYTES + 1)  # takes no room on the disk
    found = load_checkpoint(saved)
    assert found is not None
    assert found.state["number"] == 1
    assert "too large" in str(found.notice)
    saved.unlink()
    saved.mkdir()
    found = load_checkpoint(saved)
    assert found is not None
    assert "cannot be read (Is a directory)" in str(found.notice)


@pytest.mark.slow
def test_200_kills_in_the_middle_of_writing_lose_nothing(tmp_path: Path) -> None:
    """Whatever a writer had acknowledged is there, or something newer; leftovers are swept."""
    path, chance, last = tmp_path / "seed1.ckpt", random.Random(0), 0
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(200):
            process.stdin.write(f"{last} {chance.uniform(0, 0.02)}\n")
            process.stdin.flush()
            acknowledged = int(process.stdout.readline())
            found = load_checkpoint(path)
            assert found is not None
            number = found.state["number"]
            # between the two renames the newest acknowledged one is the previous one
            assert number >= acknowledged
            assert bool((found.state["tensor"] == number).all())
            last = number
        process.stdin.close()
    assert process.returncode == 0
    assert last >= 200
    assert list(tmp_path.glob(".*.tmp-*")), "no writer was killed while it wrote"
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"seed1.ckpt", "seed1.previous.ckpt"}


def test_a_trial_goes_on_from_the_previous_checkpoint_or_begins_again(
    tmp_path: Path, dataset: Dataset, architecture: Architecture
) -> None:
    recipe = Recipe(batch=16, rungs=(Rung(share=0.5, epochs=4), Rung(share=1.0, epochs=4)))
    task = Task(tmp_path / "whole", dataset, measure(dataset.train), recipe, seed=0)
    job = Job(0, "all-add", 0, architecture)
    whole = finish(Evaluation(task, job))
    task = replace(task, trials=tmp_path / "damaged")
    killed = Evaluation(task, job)
    for _ in range(3):
        killed.epoch()
    flip(task.trials / job.key / "rung0.ckpt", 999)
    second = Evaluation(task, job)
    assert second.notice is not None
    assert job.key in second.notice
    assert second.training.done == 2 * second.training.per_epoch
    result = finish(second)
    assert (result.accuracy, result.loss) == (whole.accuracy, whole.loss)
    killed = Evaluation(task, job)
    for _ in range(2):
        killed.epoch()
    for path in (task.trials / job.key).glob("*.ckpt"):
        cut(path, 9)
    third = Evaluation(task, job)
    assert third.notice is not None
    assert "begins again" in third.notice
    assert third.training.done == 0
    result = finish(third)
    assert (result.accuracy, result.loss) == (whole.accuracy, whole.loss)


def finish(evaluation: Evaluation) -> Result:
    while not evaluation.done:
        evaluation.epoch()
    return evaluation.finish()
