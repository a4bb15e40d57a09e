"""Watchdog: ends a process in which nothing moves any more, and writes down where it stood.

The timer is `faulthandler`'s, a thread of the interpreter's own that needs no lock, so code that
holds all of Python up does not hold it up. What stops the whole process, it cannot notice: its file
says therefore whose it is and how long it may be silent, for others to look at (`lookout.py`).
"""

from __future__ import annotations

import faulthandler
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

PATIENCE = float(os.environ.get("NASFUSE_PATIENCE", 600))  # seconds, many times those of any batch
LONGER = 2  # times as long as all before, a part of a long job may take: judging follows training
OFTEN = 1.0  # seconds after which a sign of life counts
HEAD = 128  # bytes of the file's first line; the host's name may have 64


class Watchdog:
    """Lets a process live as long as it gives signs of life.

    While `watch` is entered `alive` has to be called every `PATIENCE` seconds, in long jobs less
    often; else the process ends with exit code 1, and the file has the stack of each thread. So it
    has where the process crashes.
    """

    def __init__(self) -> None:
        self._file: FileIO | None = None
        self._began = self._last = 0.0

    @contextmanager
    def watch(self, path: Path, spent: float = 0.0) -> Iterator[None]:
        """`spent` seconds of a job so far; the longer it took, the longer its parts may take."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic() - spent
        crashes = faulthandler.is_enabled()
        with FileIO(path, "w") as self._file:
            self._file.write(_head(PATIENCE))
            faulthandler.enable(self._file)
            self._arm(self._file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                faulthandler.disable()
                if crashes:
                    with suppress(AttributeError, OSError, ValueError):  # no such file any more
                        faulthandler.enable(sys.__stderr__)  # type: ignore[arg-type]
                self._file = None
                path.unlink(missing_ok=True)

    def alive(self) -> None:
        """A sign of life; costs nothing to speak of."""
        if self._file is not None and time.monotonic() - self._last > OFTEN:
            self._arm(self._file)

    def _arm(self, file: FileIO) -> None:
        self._last = time.monotonic()
        patience = max(PATIENCE, LONGER * (self._last - self._began))
        os.pwrite(file.fileno(), _head(patience), 0)  # its time is the sign of life for others
        faulthandler.dump_traceback_later(patience, file=file, exit=True)


def _head(patience: float) -> bytes:
    return f"{os.getpid()} {patience:.1f} {platform.node()}".encode().ljust(HEAD - 1) + b"\n"


class Watched(NamedTuple):
    """What the file of a watched process says: who it is, and how long it may be silent."""

    process: int
    patience: float
    host: str
    last: int  # when it last gave a sign of life, in nanoseconds of the file's clock


def watched(path: Path) -> Watched | None:
    """The process that is watched with this file; None where none is."""
    try:
        with path.open("rb") as file:
            words, last = file.read(HEAD).split(), os.fstat(file.fileno()).st_mtime_ns
        return Watched(int(words[0]), float(words[1]), words[2].decode(), last)
    except (OSError, IndexError, ValueError):
        return None


def last_words(path: Path) -> str:
    """What was written when the process that was watched with this file ended; "" for nothing."""
    try:
        return path.read_bytes()[HEAD:].decode(errors="replace")
    except OSError:
        return ""
