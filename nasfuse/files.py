"""Files that are whole or absent: written under another name, synced, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nasfuse.errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.tmp-{writer}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, temporary, error) from error
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file's content with these bytes, or leave it as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace the file's content with this text, or leave it as it was."""
    write_bytes(path, text.encode())


def sweep(folder: Path) -> None:
    """Remove what killed writers left; call it only while nobody else writes in the folder."""
    for leftover in folder.glob(".*.tmp-*"):
        leftover.unlink(missing_ok=True)


def _refused(path: Path, temporary: Path, error: OSError) -> StorageError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("a file cannot be written", where=str(path), why=str(error))
    written, free = 0, 0
    with suppress(OSError):  # they are for the message only
        free = shutil.disk_usage(path.parent).free
        written = temporary.stat().st_size
    return StorageError(
        "the disk is full",
        where=str(path),
        why=f"it needs more than {written / 1e6:.1f} MB, and {(free + written) / 1e6:.1f} MB "
        f"were free ({error.strerror})",
        fix="free some space, and give the same command again (nasfuse resume for a search)",
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
