"""Result: one finished evaluation, and the file that keeps them, one line each."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nasfuse.agreement import Judged
from nasfuse.architecture import Architecture
from nasfuse.documents import MAX_BYTES
from nasfuse.errors import StorageError
from nasfuse.files import refusal
from nasfuse.names import SAMPLERS as SAMPLERS
from nasfuse.names import Objective as Objective
from nasfuse.names import is_reference
from nasfuse.pareto import Point, front
from nasfuse.ranges import Amount, Count, Latency, Moment, Seed, Share, Size, first_mistake

MAX_FAILURES_IN_A_ROW = 8
MOST_RESULTS = 1_000_000  # lines of a file, each of at most MAX_BYTES


class Step(NamedTuple):
    """One evaluation of a study: a network on a rung, for the first time or again."""

    key: str
    rung: int
    repeat: int = 0

    @property
    def stem(self) -> str:
        """What its files in the trial's folder are called."""
        return f"rung{self.rung}" + (f"-{self.repeat}" if self.repeat else "")


class Result(BaseModel):
    """What came of training one architecture on one rung.

    `accuracy` is on validation images, between 0 and 1; it and the losses are absent where the
    evaluation failed, and then `cause` says why. `calibrated_loss` is the lowest that a temperature
    between 1/8 and 8 gives; studies of format 1 lack it. `train_loss` is the mean over all training
    steps. `origin` is how the candidate was proposed: the name of a reference of the space, or the
    sampler's. `objective` names the cost that the study's front has beside accuracy; `latency`, in
    milliseconds, is measured only where it is that or has a limit. `gpus` is the share of a GPU
    that the worker had, and `mps` whether it shared it by MPS. `repeat` counts further full
    trainings of a finalist, each with a seed of its own. Where it is `too_slow`, its latency is
    over the limit of the search and it was not trained. `batch` is what it was trained with; where
    that is half of what the recipe says, `retry` says what made it begin again. Where it
    `recomputes`, dense layers did so to save memory. `weights_sha256` is that of the file with its
    weights. `right` says of a repeat on which validation images it is right (agreement.py). Studies
    of before lack these two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str = Field(pattern=r"^[0-9a-f]{12}$")  # folders have it as their name
    number: int = Field(ge=0, lt=MOST_RESULTS)
    rung: Count
    repeat: Count = 0
    origin: str
    status: Literal["complete", "failed"]
    architecture: Architecture
    macs: Size
    params: Size
    thop: Size
    latency: Latency | None = None
    objective: Objective = "macs"
    accuracy: Share | None = None
    loss: float | None = None
    calibrated_loss: float | None = None
    train_loss: float | None = None
    cause: str | None = None
    too_slow: bool | None = None
    batch: Size | None = None
    retry: str | None = None
    recomputes: bool | None = None
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    right: str | None = Field(default=None, pattern=r"^[A-Za-z0-9+/]*={0,2}$")
    seconds: Amount
    cpu_seconds: Amount | None = None
    gpus: Amount | None = None
    mps: bool | None = None
    seed: Seed
    data: str
    versions: dict[str, str]
    finished: Moment

    @model_validator(mode="after")
    def _has_what_its_status_says(self) -> Result:
        complete = self.status == "complete"
        if complete != (self.accuracy is not None):
            raise ValueError(f"a result that is {self.status} has {self.accuracy} as accuracy")
        if not complete and self.cause is None:
            raise ValueError("a result that is failed has no cause")
        if complete and getattr(self, self.objective) is None:
            raise ValueError(f"its objective is {self.objective}, which it does not have")
        return self

    @property
    def step(self) -> Step:
        """Which evaluation this is; there is one result of each."""
        return Step(self.key, self.rung, self.repeat)

    @property
    def is_reference(self) -> bool:
        """Whether it is a hand-made member of the space, and not a sampler's proposal."""
        return is_reference(self.origin)

    @property
    def point(self) -> Point:
        """Where it stands in the plane of the search; only for complete results."""
        assert self.accuracy is not None
        return Point(self.accuracy, self.cost)

    @property
    def broke(self) -> bool:
        """Whether it failed, and not for being slower than was asked for."""
        return self.status == "failed" and not self.too_slow

    @property
    def cost(self) -> float:
        """What is to be low: MACs, parameters or milliseconds."""
        value = getattr(self, self.objective)
        return float("inf") if value is None else float(value)


def judged(trainings: Sequence[Result], images: int) -> Judged:
    """What complete trainings of one network say, on so many validation images."""
    return Judged(
        tuple(result.point.accuracy for result in trainings),
        tuple(result.right for result in trainings),
        images,
    )


def complete(results: Iterable[Result], rung: int) -> list[Result]:
    """The evaluations that ended well on one rung, finalists' repeats aside."""
    return [r for r in results if r.status == "complete" and (r.rung, r.repeat) == (rung, 0)]


def failed_throughout(results: Sequence[Result]) -> list[Result]:
    """The last ones, where so many failed in a row that it cannot be the networks."""
    last = list(takewhile(lambda result: result.broke, reversed(results)))
    return last[::-1] if len(last) >= MAX_FAILURES_IN_A_ROW else []


def result_front(results: Sequence[Result]) -> list[Result]:
    """The Pareto front, cheapest first, of the highest rung that anything completed.

    Accuracies of different rungs are never compared with each other.
    """
    highest = max((r.rung for r in results if r.status == "complete"), default=0)
    trained = complete(results, highest)
    return [trained[i] for i in front([r.point for r in trained])]


def append_result(path: Path, result: Result) -> None:
    """Add one line and do not return before it is on the disk; half a line is taken back.

    Raises:
        StorageError: the disk does not take it.
    """
    line = (result.model_dump_json(exclude_none=True) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        start = file.tell()
        try:
            written = file.write(line)
            if written != len(line):
                why = f"{written} of {len(line)} bytes were written"
                raise OSError(errno.ENOSPC, why)  # the system says so only of the next ones
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(start)
            raise refusal(path, error, written=len(line)) from None


def fits_all(result: Result) -> None:
    """What a result has to fit where nothing is known of its study: anything does."""


def read_results(path: Path, fits: Callable[[Result], None] = fits_all) -> list[Result]:
    """All results of a file; a last line that a crash cut short is left out.

    `fits` raises ValueError where a result cannot be one of the study.

    Raises:
        StorageError: a line other than the last is damaged, or there are too many.
    """
    fix = "remove the line; the trial is then trained again"
    results: list[Result] = []
    if not path.exists():
        return results
    with path.open("rb") as file:
        # a line is never read beyond its limit
        while (line := file.readline(MAX_BYTES + 1)).endswith(b"\n") or len(line) > MAX_BYTES:
            where = f"{path}, line {len(results) + 1}"
            if len(results) == MOST_RESULTS:
                why = f"the limit is {MOST_RESULTS:,} results"
                raise StorageError("this file is too long", where=where, why=why)
            results.append(parse_result(line, where=where, fix=fix, fits=fits))
    return results  # what is left is nothing, or the start of a line whose writer died


def parse_result(
    text: bytes, *, where: str, fix: str, fits: Callable[[Result], None] = fits_all
) -> Result:
    """A result from its JSON. Raises StorageError, with `where` and `fix`, if it is damaged."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
        result = Result.model_validate_json(text)
        fits(result)
    except ValueError as error:  # pydantic's are such
        raise StorageError(
            "this result is damaged", where=where, why=_reason(error), fix=fix
        ) from None
    return result


def _reason(error: ValueError) -> str:
    return first_mistake(error) if isinstance(error, ValidationError) else str(error)
