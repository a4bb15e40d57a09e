"""A study's folder: all that is needed to resume a search, look at it and export from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import yaml
from filelock import FileLock, Timeout
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nasfuse.data.dataset import Dataset
from nasfuse.data.load import load_dataset, runs_code
from nasfuse.documents import MAX_BYTES, read_document
from nasfuse.errors import DataError, DocumentError, StorageError, UsageError
from nasfuse.files import refusal, sweep, write_bytes, write_text
from nasfuse.names import is_study_name, nearest
from nasfuse.names import study_names as study_names
from nasfuse.ranges import Count, Seed, Size, first_mistake
from nasfuse.recipe import Recipe
from nasfuse.results import Objective, Result, append_result, parse_result, read_results
from nasfuse.searching.locking import holding
from nasfuse.space import SearchSpace, parse_space

SEARCH = "nasfuse search --budget 400MFLOPs"
FORMAT = 2  # of a study's folder; in 1 short trainings were judged by their accuracy


def _own_folder(name: str) -> str:
    """Of files that are a study's, paths are made with its name."""
    if not is_study_name(name):
        raise ValueError("a study's name is that of a folder")
    return name


Plenty = Annotated[int, Field(ge=1)]  # does no harm, however large
Duration = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """What was asked for, and what the data were: everything but the results.

    `id` tells studies of one name apart. `space` is the whole document of the search space, `mean`
    and `std` belong to the channels of training images with values between 0 and 1, `side` is what
    images from folders were to be stored at, and `stored` that of the images as they are. `trials`
    to `ray_address` are what was asked of the first run; a resumed one takes them up. `objective`
    is the cost of the front, which begins at `front_from` MACs where that was asked for,
    `max_params` and `max_latency` (in milliseconds) further limits, `skip_bad` the most unreadable
    images that are left out of a folder. `storage` is the address of the database of the proposals,
    where it is not a file in the study's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # a part of questions to MLflow
    name: Annotated[str, AfterValidator(_own_folder)]
    space_name: str
    space: dict[str, Any]
    budget: Size
    data: str
    side: Size
    fingerprint: str
    validation: Size
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    recipe: Recipe
    sampler: str
    seed: Seed
    tracking_uri: str | None
    versions: dict[str, str]
    trials: Plenty | None = None
    seconds: Duration | None = None
    workers: Plenty | None = None
    gpus_per_trial: Annotated[float, Field(ge=0)] | None = None
    ray_address: str | None = None
    objective: Objective = "macs"
    front_from: Size | None = None
    max_params: Size | None = None
    max_latency: Duration | None = None
    skip_bad: Count = 0
    storage: str | None = None
    stored: Size | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Settings:
        if self.front_from is not None and self.front_from > self.budget:
            raise ValueError(f"front_from is {self.front_from}, above the budget")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        return self

    def require_fitting(self, result: Result) -> None:
        """Whether a result can be one of this study.

        Raises:
            ValueError: the recipe has no such rung, or what the rung is judged by is missing.
        """
        if result.rung > self.recipe.top:
            raise ValueError(f"rung {result.rung} is above the recipe's last, {self.recipe.top}")
        judged = self.version > 1 and result.status == "complete"
        if judged and result.calibrated_loss is None:
            raise ValueError("a complete result lacks calibrated_loss")

    @property
    def search_space(self) -> SearchSpace:
        """The space for these images. Raises StorageError where the document is none."""
        try:
            space = parse_space(self.space, name=self.space_name)
        except DocumentError as error:
            raise StorageError(
                "this study's settings are damaged",
                where=f"study.yaml, space: {error.where}",
                why=error.why,
            ) from None
        return space.for_images(channels=len(self.mean), classes=len(self.classes))


@dataclass(frozen=True)
class Study:
    """A folder with settings, results and one folder a trial."""

    folder: Path
    settings: Settings

    @classmethod
    def create(cls, folder: Path, settings: Settings) -> Study:
        """A new folder; an existing study is never touched.

        Raises:
            UsageError: there is a study of this name.
            StorageError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "trials").mkdir()  # of two that start at once, one succeeds
        except FileExistsError:
            raise UsageError(
                f"there is a study '{folder.name}' already",
                where=str(folder),
                fix=f"nasfuse resume {shlex.quote(str(folder))}   or another --name",
            ) from None
        except OSError as error:
            raise refusal(folder, error) from None
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, width=100)
        try:
            write_text(folder / "study.yaml", text)
        except StorageError:  # what is left would be no study, and its name would be taken
            (folder / "trials").rmdir()
            folder.rmdir()
            raise
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path) -> Study:
        """An existing study; nothing is created.

        Raises:
            StorageError: the settings are damaged or of another version.
        """
        path = folder / "study.yaml"
        try:
            document = read_document(path)
            _refuse_newer(document, path)
            if isinstance(document, dict):
                document.setdefault("version", 1)  # the first studies did not say
            return cls(folder, Settings.model_validate(document))
        except DocumentError as error:
            raise StorageError(
                "this study's settings are damaged", where=error.where, why=error.why
            ) from None
        except ValidationError as error:
            raise StorageError(
                "this study's settings are damaged or of another version",
                where=str(path),
                why=first_mistake(error),
            ) from None

    @property
    def resumable(self) -> bool:
        """Whether its results are comparable with those that would come."""
        return self.settings.version == FORMAT

    def require_resumable(self) -> None:
        """Refuse to go on with a study that is not resumable.

        Raises:
            StorageError: it was begun by an older nasfuse.
        """
        if not self.resumable:
            raise StorageError(
                "this study was begun by an older nasfuse; its search cannot go on",
                where=str(self.folder),
                why="it judged short trainings by their accuracy, and they are judged by their loss"
                " now; what was found can be looked at and exported",
                fix=SEARCH,
            )

    @property
    def results(self) -> list[Result]:
        """All results. Raises StorageError where one is damaged or cannot be of this study."""
        return read_results(self.folder / "results.jsonl", self.settings.require_fitting)

    def record(self, result: Result) -> None:
        """Put a result on the disk; whoever is told of it is told afterwards."""
        append_result(self.folder / "results.jsonl", result)

    def trial(self, key: str) -> Path:
        """The folder of one architecture: its checkpoints, weights and results."""
        return self.folder / "trials" / key

    def recover(self) -> list[Result]:
        """Take in what a killed search left: results its workers wrote and it never recorded.

        A last line that the kill cut short is removed first.
        """
        path = self.folder / "results.jsonl"
        if path.exists():
            whole = path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]
            if kept != whole:
                write_bytes(path, kept)
        known = {r.step for r in self.results}
        for folder in (self.folder, self.folder / "report", *self.folder.glob("trials/*")):
            sweep(folder)
        for path in sorted(self.folder.glob("trials/*/rung*.json")):
            fix = "remove the file; the trial is then trained again"
            with path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
            fits = self.settings.require_fitting
            result = parse_result(text, where=str(path), fix=fix, fits=fits)
            if result.step not in known:
                self.record(result)
        return self.results

    def mark(self, *, complete: bool) -> None:
        """Keep whether the search came to its own end; it has not while it runs."""
        write_text(self.folder / "end", "complete\n" if complete else "open\n")

    @property
    def complete(self) -> bool | None:
        """Whether the last search came to its own end; None where none has said so yet.

        One that was stopped, failed or killed did not.
        """
        path = self.folder / "end"
        return path.read_bytes() == b"complete\n" if path.exists() else None

    @property
    def searcher(self) -> int | None:
        """The process that searches in this study, if one does."""
        try:
            process = int((self.folder / "study.pid").read_text())
        except (OSError, ValueError):
            return None
        # the file outlives a search that was killed, the lock does not
        lock = FileLock(self.folder / "study.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return process
        except OSError:  # somebody else's study, which this user may only read
            return process if psutil.pid_exists(process) else None
        lock.release()
        return None

    def ask_to_stop(self) -> None:
        """Let the running search end after its running steps; also one on another machine."""
        (self.folder / "stop").touch()

    @property
    def asked_to_stop(self) -> bool:
        return (self.folder / "stop").exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study for this process; the system frees it however the process ends.

        Raises:
            StorageError: another process holds it.
        """

        def refuse(holder: str) -> StorageError:
            return StorageError(
                f"study '{self.folder.name}' is in use",
                where=str(self.folder),
                why=f"process {holder} holds it",
                fix=f"nasfuse stop {shlex.quote(str(self.folder))}   or wait until it has ended",
            )

        with holding(self.folder, "study", refuse):
            (self.folder / "stop").unlink(missing_ok=True)  # asked of an earlier search
            yield


def _refuse_newer(document: object, path: Path) -> None:
    """What a later nasfuse wrote may mean something else, even where it can be read."""
    written = document.get("version") if isinstance(document, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise StorageError(
            "this study was written by a newer nasfuse",
            where=str(path),
            why=f"its format is {written}, and this nasfuse knows those up to {FORMAT}",
            fix="pip install --upgrade nasfuse",
        )


def find_study(studies: Path, name: str | None) -> Study:
    """A study by name or by the path of its folder, or the one that was used last.

    Raises:
        UsageError: there is none; a near match is offered.
    """
    names = study_names(studies)
    if name is None and names:
        return Study.open(studies / names[-1])
    if name in names:
        return Study.open(studies / str(name))
    if name is not None and (Path(name) / "study.yaml").is_file():
        return Study.open(Path(name).resolve())
    near = nearest(name, names) if name else None
    raise UsageError(
        f"there is no study '{name}'" if name else "there is no study yet",
        where=str(studies),
        why=f"the studies here are {', '.join(names)}" if names else "it holds no studies",
        fix=f"nasfuse status {shlex.quote(near or names[-1])}" if names else SEARCH,
    )


def free_name(studies: Path, stem: str) -> str:
    """`stem-1`, or the first number that no study has."""
    number = 1
    while (studies / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def images_again(settings: Settings, data: str | None, *, again: str) -> Dataset:
    """The images of a study, once more, and the same; `data` is where they are now, if they moved.

    `again` is the command to type where `data` has to be named.

    Raises:
        DataError: they are gone, or not those that the study began with.
        UsageError: they come from a function, which `data` has to name again.
    """
    source = data or settings.data
    if data is None and runs_code(source):
        raise UsageError(
            f"the images of this study come from a function, {source}",
            where=f"study '{settings.name}'",
            why="code runs only where its name is typed, and not because a study's file names it",
            fix=again,
        )
    dataset = load_dataset(
        source, side=settings.side, seed=settings.seed, skip_bad=settings.skip_bad
    )
    if dataset.fingerprint != settings.fingerprint:
        raise DataError(
            "the images have changed since the study began",
            where=source,
            why=f"their fingerprint is {dataset.fingerprint}, it was {settings.fingerprint}; "
            "accuracies on different images cannot be compared",
            fix=f"nasfuse search --data {shlex.quote(source)}   for a new study",
        )
    return dataset
