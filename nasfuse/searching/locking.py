"""One process a folder: a lock, and beside it the number of the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nasfuse.errors import StorageError
from nasfuse.files import refusal, write_text

GLANCE = 0.5  # seconds; who only asks whether a folder is held holds it for much less


@contextmanager
def holding(folder: Path, name: str, refuse: Callable[[str], StorageError]) -> Iterator[None]:
    """Hold the folder for this process; the system frees it however the process ends.

    The files are `name`.lock and `name`.pid.

    Raises:
        StorageError: another process, whose number `refuse` is told, holds it; or it cannot be
            written.
    """
    lock, owner = FileLock(folder / f"{name}.lock"), folder / f"{name}.pid"
    try:
        lock.acquire(timeout=GLANCE, poll_interval=0.01)
    except Timeout:
        raise refuse(_read(owner)) from None
    except OSError as error:
        raise refusal(folder, error) from None
    try:
        write_text(owner, str(os.getpid()))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _read(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8")
    except OSError:  # it has only just begun, or is about to end
        return "unknown"
