"""A study's log: what Ray, Optuna and MLflow have to say goes there, and not to the terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasfuse.errors import hide_passwords

NAMES = ("nasfuse", "ray", "ray.tune", "optuna", "mlflow", "alembic", "py.warnings")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
log = logging.getLogger("nasfuse")
log.setLevel(logging.INFO)


class _Log(logging.FileHandler):
    """One that a full disk cannot make write tracebacks to the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out: whatever else is written says what is wrong with the disk."""


class _Formatter(logging.Formatter):
    """Without the passwords of addresses, which others put into their messages and traces."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record))


@contextmanager
def logbook(path: Path) -> Iterator[None]:
    """Write these libraries' logs and Python's warnings to a file; an error with its traceback."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    handler = _Log(path, encoding="utf-8")
    handler.setFormatter(_Formatter(_FORMAT))
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield
    except Exception:
        log.exception("the search ended with an error")
        raise
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, propagates) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagates
        handler.close()
