"""Disks that are full and folders that refuse: said with numbers, and nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from nasfuse.checkpoints import load_checkpoint, save_checkpoint
from nasfuse.errors import StorageError
from nasfuse.files import write_text


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
