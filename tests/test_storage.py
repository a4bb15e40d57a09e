"""Disks that are full and folders that refuse: said with numbers, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasfuse.architecture import Architecture
from nasfuse.checkpoints import load_checkpoint, save_checkpoint
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.data.decoded import decoded
from nasfuse.errors import StorageError
from nasfuse.explaining import write_study_report
from nasfuse.files import free_space, write_text
from nasfuse.planning import SearchOptions, plan_search
from nasfuse.recipe import Recipe, Rung
from nasfuse.results import Result, read_results
from nasfuse.searching.database import Database
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.storage import Storage
from nasfuse.searching.study import Settings, Study
from nasfuse.searching.worker import Evaluation, Job, Task
from nasfuse.space import load_space
from nasfuse.tracking import local_uri
from nasfuse.view import View

MakeResult = Callable[..., Result]
MakeSettings = Callable[..., Settings]


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_said_with_numbers_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, checkpoint = tmp_path / "a.json", tmp_path / "rung0.ckpt"
    write_text(text, "old")
    save_checkpoint(checkpoint, {"tensor": torch.zeros(1)})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full") as caught:
            write_text(text, "n" * 200_000)
        assert "more than 0.2 MB" in caught.value.why
        assert "were free" in caught.value.why
        assert caught.value.exit_code == 8
        with pytest.raises(StorageError, match="the disk is full"):
            save_checkpoint(checkpoint, {"tensor": torch.ones(1)})
    assert text.read_text() == "old"
    found = load_checkpoint(checkpoint)
    assert found is not None
    assert float(found.state["tensor"][0]) == 0.0
    assert not list(tmp_path.glob(".*.tmp-*"))
    write_text(text, "new")
    assert text.read_text() == "new"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_text(tmp_path / "file" / "a.json", "text")
    assert "a.json" in caught.value.where


def refused(write: Callable[[], object], disk: Any) -> None:
    """It is refused on a full disk, and done once there is room."""

    def several() -> None:
        for _ in range(100):  # what is added to a file may find room in its last block
            write()

    disk.fill()
    with pytest.raises(StorageError, match="the disk is full") as caught:
        several()
    assert caught.value.exit_code == 8
    assert "it needs more than" in caught.value.why
    assert "MB were free" in caught.value.why
    assert str(disk.folder) in caught.value.where
    disk.free()
    write()


def test_a_study_on_a_full_disk_is_begun_locked_and_told_of_results_later(
    disk: Any, make_settings: MakeSettings, make_result: MakeResult
) -> None:
    folder, made = disk.folder / "studies" / "s", list[int]()
    disk.fill()
    for _ in range(2):
        with pytest.raises(StorageError, match="the disk is full"):
            Study.create(folder, make_settings("s"))
        assert not folder.exists(), "its name is not taken"
    disk.free()
    study = Study.create(folder, make_settings("s"))

    def lock() -> None:
        with study.locked():
            pass

    def record() -> None:
        study.record(make_result(len(made)))
        made.append(len(made))

    refused(lock, disk)
    refused(record, disk)
    assert [result.number for result in Study.open(folder).results] == made


def test_a_database_on_a_full_disk_keeps_what_it_has(disk: Any) -> None:
    folder = disk.folder

    def open_() -> Proposer:
        space = load_space("fusions")
        return Proposer(
            Storage(folder / "study.db"), space, budget=1_000_000, sampler="random", seed=0
        )

    refused(open_, disk)
    proposer = open_()
    proposed = [proposer.propose(), proposer.propose()]
    refused(proposer.keep, disk)
    assert proposer.unfinished() == proposed, "each once"
    first = proposer.unfinished()[0]
    proposer.tell(first.number, value=0.5, cost=1.0)
    refused(proposer.keep, disk)
    refused(Database(folder / "study.db").back_up, disk)
    refused(open_, disk)
    again = open_()
    assert again.proposed == proposer.proposed
    assert first.number not in {proposal.number for proposal in again.unfinished()}


def test_a_job_on_a_full_disk_goes_on_where_it_was(
    disk: Any, dataset: Dataset, architecture: Architecture
) -> None:
    recipe = Recipe(batch=16, rungs=(Rung(share=0.5, epochs=1), Rung(share=1.0, epochs=3)))
    task = Task(disk.folder / "trials", dataset, measure(dataset.train), recipe, seed=0)
    job = Job(4, "all-add", 1, architecture)
    disk.fill()
    with pytest.raises(StorageError, match="the disk is full"):
        Evaluation(task, job)
    disk.free()
    evaluation = Evaluation(task, job)
    evaluation.epoch()
    disk.fill()
    with pytest.raises(StorageError, match="the disk is full"):
        evaluation.epoch()
    disk.free()
    again = Evaluation(task, job)
    assert again.training.done == again.training.per_epoch
    while not again.done:
        again.epoch()
    disk.fill()
    with pytest.raises(StorageError, match="the disk is full"):
        again.finish()
    assert not list((task.trials / job.key).glob("rung*.safetensors"))
    disk.free()
    assert again.finish().accuracy is not None


def test_report_and_mlflow_on_a_full_disk(
    disk: Any, make_settings: MakeSettings, make_result: MakeResult
) -> None:
    study = Study.create(disk.folder / "studies" / "s", make_settings("s"))
    results = [make_result(number, rung=2) for number in range(2)]
    refused(lambda: write_study_report(study, results), disk)
    view = View(study, local_uri(study.folder.parent))
    view._sync(results[:1])
    assert view.problem is None
    disk.fill()
    view._sync(results)
    assert view.problem is not None
    assert "Traceback" not in view.problem
    disk.free()
    view._sync(results)
    assert view.problem is None


def test_images_are_decoded_into_memory_where_the_cache_is_full(
    disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8)).save(paths[-1])
    monkeypatch.setenv("NASFUSE_CACHE", str(disk.folder))
    disk.fill()
    found = decoded(paths, side=8, grey=False)
    assert found.file is None
    assert found.images[:, 0, 0, 0].tolist() == [0, 80, 160]
    disk.free()
    assert decoded(paths, side=8, grey=False).file is not None


def test_a_search_asks_for_room_before_it_begins(disk: Any) -> None:
    options = SearchOptions("4MFLOPs", trials=12, studies=disk.folder / "new" / "studies")
    plan_search(options)
    with pytest.raises(StorageError, match="too little room") as caught:
        plan_search(SearchOptions("100MFLOPs", trials=2000, studies=options.studies))
    assert caught.value.exit_code == 8
    free = free_space(disk.folder) / 1e6
    assert f"{free:.0f} MB are free" in caught.value.why
    assert "2000 networks need about" in caught.value.why
    assert list(disk.folder.iterdir()) == []


@pytest.mark.slow
def test_a_search_whose_disk_fills_up_says_so_and_is_resumed(disk: Any, quick: list[str]) -> None:
    studies = disk.folder / "my studies"
    command = [sys.executable, "-m", "nasfuse"]
    options = ["--studies", str(studies), "--workers", "1", "--trials", "3"]
    asked = [*options, *quick]
    path = studies / "s" / "results.jsonl"
    with subprocess.Popen(
        [*command, "search", "--budget", "1MFLOPs", "--data", "digits", "--name", "s", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as search:
        while not read_results(path):
            assert search.poll() is None
            time.sleep(0.1)
        disk.fill()
        said = search.communicate()[0]
    assert search.returncode == 8, said
    assert "error[NF800]: the disk is full" in said
    assert "MB were free" in said
    assert "Traceback" not in said
    done = read_results(path)
    front = subprocess.run(
        [*command, "front", "s", "--json", "--studies", str(studies)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(front.stdout)["front"]) >= 1
    again = [*command, "resume", "s", *options]
    full = subprocess.run(again, capture_output=True, text=True, check=False)
    assert full.returncode == 8, full.stderr
    assert "the disk is full" in full.stderr
    disk.free()
    resumed = subprocess.run(again, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    results = read_results(path)
    assert results[: len(done)] == done
    assert max(Counter(result.step for result in results).values()) == 1
    assert (studies / "s" / "report" / "front.html").exists()
