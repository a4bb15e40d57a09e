"""Watchdog: ends a process in which nothing moves any more, and writes down where it stood.

The timer is `faulthandler`'s, a thread of the interpreter's own that needs no lock, so code that
holds all of Python up does not hold it up.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

PATIENCE = float(os.environ.get("NASFUSE_PATIENCE", 600))  # seconds, many times those of any batch
LONGER = 2  # times as long as all before, a part of a long job may take: judging follows training
OFTEN = 1.0  # seconds after which a sign of life counts


class Watchdog:
    """Lets a process live as long as it gives signs of life.

    While `watch` is entered `alive` has to be called every `PATIENCE` seconds, in long jobs less
    often; else the process ends with exit code 1, and the file has the stack of each thread.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._began = self._last = 0.0

    @contextmanager
    def watch(self, path: Path, spent: float = 0.0) -> Iterator[None]:
        """`spent` seconds of a job so far; the longer it took, the longer its parts may take."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic() - spent
        with path.open("w", encoding="utf-8") as self._file:
            self._arm(self._file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._file = None
                path.unlink(missing_ok=True)

    def alive(self) -> None:
        """A sign of life; costs nothing to speak of."""
        if self._file is not None and time.monotonic() - self._last > OFTEN:
            self._arm(self._file)

    def _arm(self, file: TextIO) -> None:
        self._last = time.monotonic()
        patience = max(PATIENCE, LONGER * (self._last - self._began))
        faulthandler.dump_traceback_later(patience, file=file, exit=True)


def stuck(path: Path) -> bool:
    """Whether a process ended because nothing moved, while it watched with this file."""
    return path.exists() and path.stat().st_size > 0
