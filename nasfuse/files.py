"""Files that are whole or absent: written under another name, synced, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from nasfuse.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Raises:
        StorageError: the disk is full or the folder cannot be written; `path` is as it was then, or
            whole and new, where only the sync of its folder failed.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.tmp-{writer}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise refusal(path, error, written=_size(temporary)) from error
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file's content with these bytes. Raises StorageError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace the file's content with this text. Raises StorageError as `replacing` does."""
    write_bytes(path, text.encode())


def sync(path: Path) -> None:
    """Do not return before what the file holds would survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def rename_folder(folder: Path, target: Path) -> None:
    """Let a folder take the place of none or of an empty one, when all in it is on the disk.

    Raises:
        OSError: something else is there, or the disk does not take it.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            _sync_folder(path)
        else:
            sync(path)
    if target.exists():
        target.rmdir()
    folder.rename(target)
    _sync_folder(target.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left; of others that still live, nothing."""
    for leftover in folder.glob(".*.tmp-*"):
        writer = leftover.name.rpartition(".tmp-")[2].partition("-")[0]
        if not _writes(writer):
            leftover.unlink(missing_ok=True)


def _writes(process: str) -> bool:
    """Whether there is another process of this number."""
    number = int(process) if process.isdecimal() and len(process) < 10 else 0
    # in a container, the process after a killed one may well have its number
    return number not in (0, os.getpid()) and psutil.pid_exists(number)


def refusal(path: Path, error: OSError, *, written: int = 0) -> StorageError:
    """What to say of a file that the system did not take, or only the first bytes `written` of."""
    if error.errno in FULL:
        return full_disk(path, needed=written, free=free_space(path) + written)
    if error.errno in FORBIDDEN:
        return StorageError(
            "a file cannot be written",
            where=str(path),
            why=f"{error.strerror}; this process runs as {_user()}",
            fix="another folder, or rights to this one",
        )
    return StorageError("a file cannot be written", where=str(path), why=str(error))


def full_disk(path: Path, *, needed: int, free: int) -> StorageError:
    """The error of a disk that does not hold the bytes that are needed."""
    return StorageError(
        "the disk is full",
        where=str(path),
        why=f"it needs more than {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB were free",
        fix="free some space, and give the same command again (nasfuse resume for a search)",
    )


def free_space(path: Path) -> int:
    """Bytes that this user can still write where a path lies, or will lie; 0 if nobody knows."""
    with suppress(OSError):
        place = path.absolute()
        return shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    return 0


def _size(path: Path) -> int:
    with suppress(OSError):  # it is for a message only
        return path.stat().st_size
    return 0


def _user() -> str:
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "another user"


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
