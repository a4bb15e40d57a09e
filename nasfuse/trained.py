"""Trained: the document of a full training, from what was asked to what its networks know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nasfuse.architecture import Architecture
from nasfuse.errors import StorageError
from nasfuse.recipe import Recipe

SETTINGS, RESULT = "settings.json", "trained.json"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingSettings(_Document):
    """What was asked for, and what the data were. Equal settings are the same training.

    `study` and `number` name the trial, where it is one. `data`, `side`, `split_seed` and
    `skip_bad` are what `load_dataset` was told, `stored` the side of the images that it gave.
    `all_data` trains on the validation images as well.
    """

    version: Literal[1] = 1
    study: str | None
    number: int | None
    architecture: Architecture
    data: str
    side: int
    split_seed: int
    skip_bad: int
    stored: int
    fingerprint: str
    train: int
    validation: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    epochs: Annotated[int, Field(ge=1)]
    seeds: Annotated[int, Field(ge=1)]
    seed: int
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

    images: int
    accuracies: tuple[float, ...]
    mean: float
    deviation: float | None
    per_class: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

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
    accuracy: float | None


class SeedRun(_Document):
    """One of the trainings: `weights` is the file's name in the folder.

    `sha256` is that of its bytes. `batch` is what it was trained with; where that is half of the
    recipe's, `retry` says what made it begin again.
    """

    seed: int
    weights: str
    sha256: str | None = None
    seconds: float
    epochs: tuple[Epoch, ...]
    batch: int | None = None
    retry: str | None = None


class Trained(_Document):
    """A finished full training. `test` was measured once, at the end; None without test images.

    `chosen` is the index of the run to take: the most accurate one on validation images, or the
    first where the networks were trained on those.
    """

    version: Literal[1] = 1
    settings: TrainingSettings
    macs: int
    params: int
    thop: int
    runs: tuple[SeedRun, ...]
    chosen: int
    validation: Scores | None
    test: Scores | None
    versions: dict[str, str]
    finished: str

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
        return Trained.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise StorageError(
            "the result of this training is damaged or of another version",
            where=str(path),
            why=str(error).splitlines()[0],
            fix="remove the file and give the same `nasfuse train` again",
        ) from None


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
