"""Trained: the document of a full training, from what was asked to what its networks know."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nasfuse.architecture import Architecture
from nasfuse.errors import StorageError
from nasfuse.ranges import Amount, Count, Moment, Seed, Share, Size, first_mistake
from nasfuse.recipe import Recipe

SETTINGS, RESULT = "settings.json", "trained.json"
LONGEST_NAME = 255  # bytes, on nearly every disk
MAX_BYTES = 100_000_000  # of a result: two confusions of 3,000 classes


def _file_name(name: str) -> str:
    """Weights lie in the folder of their training and nowhere else."""
    if Path(name).name != name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError("it is not the name of a file in this folder")
    return name


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingSettings(_Document):
    """What was asked for, and what the data were. Equal settings are the same training.

    `study` and `number` name the trial, where it is one. `data`, `side`, `split_seed` and
    `skip_bad` are what `load_dataset` was told, `stored` the side of the images that it gave.
    `all_data` trains on the validation images as well.
    """

    version: Literal[1] = 1
    study: str | None
    number: Count | None
    architecture: Architecture
    data: str
    side: Size
    split_seed: Seed
    skip_bad: Count
    stored: Size
    fingerprint: str
    train: Size
    validation: Size
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    recipe: Recipe
    epochs: Size
    seeds: Size
    seed: Seed
    all_data: bool

    @property
    def digest(self) -> str:
        """Eight hex digits of all that decides the result."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


class Scores(_Document):
    """Of all seeds on one split: accuracies between 0 and 1, and who was taken for whom.

    `deviation` is the standard deviation between seeds, absent for one seed. `confusion` counts
    over all seeds: a row a true class, a column an answer; `per_class` is the share of right
    answers in each row.
    """

    images: Size
    accuracies: tuple[Share, ...]
    mean: Share
    deviation: Share | None
    per_class: tuple[Share, ...]
    confusion: tuple[tuple[Count, ...], ...]

    @classmethod
    def of(cls, confusions: Sequence[Sequence[Sequence[int]]]) -> Scores:
        """From the confusion of each seed."""
        images = sum(map(sum, confusions[0]))
        accuracies = [sum(row[i] for i, row in enumerate(one)) / images for one in confusions]
        together = zip(*confusions, strict=True)  # row by row
        total = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in together]
        return cls(
            images=images,
            accuracies=tuple(accuracies),
            mean=fmean(accuracies),
            deviation=stdev(accuracies) if len(accuracies) > 1 else None,
            # a class without an image in this split has no accuracy, which counts as none right
            per_class=tuple(row[i] / max(1, sum(row)) for i, row in enumerate(total)),
            confusion=tuple(map(tuple, total)),
        )

    @property
    def text(self) -> str:
        """89.12 % +- 0.20 (3 seeds)."""
        count = len(self.accuracies)
        spread = "" if self.deviation is None else f" +- {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f} %{spread} ({count} seed{'s' * (count > 1)})"


class Epoch(_Document):
    """Mean training loss of an epoch, and the accuracy on validation images after it."""

    loss: float
    accuracy: Share | None


class SeedRun(_Document):
    """One of the trainings: `weights` is the file's name in the folder.

    `sha256` is that of its bytes. `batch` is what it was trained with; where that is half of the
    recipe's, `retry` says what made it begin again.
    """

    seed: Seed
    weights: Annotated[str, AfterValidator(_file_name)]
    sha256: str | None = None
    seconds: Amount
    epochs: Annotated[tuple[Epoch, ...], Field(min_length=1)]
    batch: Size | None = None
    retry: str | None = None


class Trained(_Document):
    """A finished full training. `test` was measured once, at the end; None without test images.

    `chosen` is the index of the run to take: the most accurate one on validation images, or the
    first where the networks were trained on those.
    """

    version: Literal[1] = 1
    settings: TrainingSettings
    macs: Size
    params: Size
    thop: Size
    runs: tuple[SeedRun, ...]
    chosen: Count
    validation: Scores | None
    test: Scores | None
    versions: dict[str, str]
    finished: Moment

    @model_validator(mode="after")
    def _fits_together(self) -> Trained:
        """A run for each seed, and for each split scores of all runs and classes."""
        runs, classes = len(self.runs), len(self.settings.classes)
        if self.chosen >= runs:
            raise ValueError(f"run {self.chosen} is chosen of {runs}")
        for scores in filter(None, (self.validation, self.test)):
            lengths = {len(scores.per_class), len(scores.confusion), *map(len, scores.confusion)}
            if len(scores.accuracies) != runs or lengths != {classes}:
                raise ValueError(f"its scores are not those of {runs} runs and {classes} classes")
        return self

    @property
    def key(self) -> str:
        return self.settings.architecture.key


def read_trained(folder: Path) -> Trained:
    """The result in a folder of a finished training.

    Raises:
        StorageError: it is damaged or of another version.
    """
    path = folder / RESULT
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise OSError(f"it is larger than {MAX_BYTES / 1e6:.0f} MB")
        return Trained.model_validate_json(text)
    except (ValidationError, OSError) as error:
        raise StorageError(
            "the result of this training is damaged or of another version",
            where=str(path),
            why=_reason(error),
            fix="remove the file and give the same `nasfuse train` again",
        ) from None


def _reason(error: ValidationError | OSError) -> str:
    return first_mistake(error) if isinstance(error, ValidationError) else str(error)


def find_trained(study: Path, key: str, fingerprint: str) -> tuple[Path, Trained] | None:
    """The best training of an architecture that a study's folder has.

    That is one on the study's own images, whose `fingerprint` is given, before one on others; then
    the longest, and of equally long ones the last: a quick try does not take a long one's place.
    """
    folders = [path.parent for path in study.glob(f"training/{key}-*/{RESULT}")]
    found = [(folder, read_trained(folder)) for folder in folders]

    def worth(pair: tuple[Path, Trained]) -> tuple[bool, int, str]:
        settings = pair[1].settings
        return settings.fingerprint == fingerprint, settings.epochs, pair[1].finished

    return max(found, key=worth, default=None)
