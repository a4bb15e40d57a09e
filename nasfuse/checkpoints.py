"""Checkpoints that can be trusted: each carries its checksum, and the one before it is kept.

A file is 8 bytes that say what it is, the SHA-256 of the rest, and the rest: what torch saves.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nasfuse.errors import StorageError
from nasfuse.files import replacing, sync

MAX_BYTES = 8 << 30  # more than 500 million parameters with what an optimiser keeps of them
_MARK = b"nasfuse1"
_HEAD = len(_MARK) + hashlib.sha256().digest_size


class Checkpoint(NamedTuple):
    """What was saved; `notice` says so where it is not what was saved last."""

    state: dict[str, Any]
    notice: str | None = None


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; what the file held, if it is whole, becomes the previous one.

    Raises:
        StorageError: the disk is full or the folder cannot be written; a whole checkpoint is there
            then if there was one before.
    """
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getbuffer()
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(_MARK + hashlib.sha256(content).digest())
            file.write(content)
        sync(temporary)  # before what is there is touched
        found = _examined(path)
        if found and not found.fault:  # a damaged one must not take the place of a whole one
            path.replace(_previous(path))  # a kill right after this line leaves that alone


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, on the CPU; None where none was ever saved.

    Raises:
        StorageError: there are files, and none of them is whole.
    """
    damaged: list[str] = []
    for candidate in (path, _previous(path)):
        found = _examined(candidate)
        if found and not found.fault:
            return Checkpoint(_read(found.content), _notice(path, damaged))
        if found:
            damaged.append(f"{candidate.name} {found.fault}")
    if not damaged:
        return None
    raise StorageError(
        "a checkpoint is damaged, and there is no whole one before it",
        where=str(path),
        why="; ".join(damaged),
        fix="remove it, and the training begins again",
    )


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(content: bytes) -> dict[str, Any]:
    # to the CPU, where states of random generators live; the rest finds its way
    state: dict[str, Any] = torch.load(
        io.BytesIO(content[_HEAD:]), weights_only=True, map_location="cpu"
    )
    return state


class _File(NamedTuple):
    content: bytes
    fault: str | None  # what is wrong with it


def _examined(path: Path) -> _File | None:
    """A file, None where there is none (any more)."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return _File(b"", f"is too large for a checkpoint ({size} bytes)")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return _File(b"", f"cannot be read ({error.strerror})")
    return _File(content, _fault(content))


def _fault(content: bytes) -> str | None:
    if not content.startswith(_MARK) or len(content) < _HEAD:
        return f"is no checkpoint, or was cut short ({len(content)} bytes)"
    if hashlib.sha256(memoryview(content)[_HEAD:]).digest() != content[len(_MARK) : _HEAD]:
        return f"does not have the checksum it was written with ({len(content)} bytes)"
    return None


def _notice(path: Path, damaged: list[str]) -> str | None:
    if not damaged:
        return None
    return f"{path.parent.name}: {damaged[0]}; going on from the checkpoint before it"
