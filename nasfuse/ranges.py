"""Ranges of the numbers in documents, and what is said of a value that is outside.

They are what a file from anyone may say without harm later on. Numbers are finite where the model's
configuration says `allow_inf_nan=False`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from nasfuse.costs import MOST
from nasfuse.documents import printable

YEARS = range(1970, 3000)  # a board without a clock begins in 1970


def _moment(text: str) -> str:
    """Times are kept as they were written; those beyond the years have no timestamp everywhere."""
    moment = datetime.fromisoformat(text)
    if moment.year not in YEARS or moment.astimezone(UTC).year not in YEARS:
        raise ValueError(f"the year is not between {YEARS[0]} and {YEARS[-1]}")
    return text


Count = Annotated[int, Field(ge=0, le=MOST)]
Size = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Latency = Annotated[float, Field(gt=0, le=1e9)]
Moment = Annotated[str, AfterValidator(_moment)]


def first_mistake(error: ValidationError) -> str:
    """The first value that is wrong, by its path, and why."""
    first = error.errors(include_url=False)[0]
    place, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return printable(f"{place}: {why}" if place else why)
