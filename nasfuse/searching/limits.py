"""Limits: when a search ends, and what was last asked of a study."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from nasfuse.errors import StorageError
from nasfuse.files import write_bytes
from nasfuse.ranges import first_mistake
from nasfuse.searching.study import Duration, Plenty, Study

FILE = "limits.json"


@dataclass(frozen=True)
class Limits:
    """When a search ends: after so many networks, or so many seconds; None is no limit."""

    trials: Plenty | None
    seconds: Duration | None

    def __bool__(self) -> bool:
        return self != Limits(None, None)


_LIMITS = TypeAdapter(Limits)


def keep_limits(study: Study, limits: Limits) -> None:
    """Note what a run was asked for; whoever resumes it need not say it again."""
    write_bytes(study.folder / FILE, _LIMITS.dump_json(limits))


def last_limits(study: Study) -> Limits:
    """What was asked of the last run.

    Raises:
        StorageError: the note is damaged.
    """
    path = study.folder / FILE
    if not path.exists():
        return Limits(study.settings.trials, study.settings.seconds)
    try:
        return _LIMITS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise StorageError(
            "the limits of this study are damaged",
            where=str(path),
            why=first_mistake(error),
            fix="remove the file; those of the first run hold then",
        ) from None
