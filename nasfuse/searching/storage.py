"""Where a study's proposals are kept: SQLite in its folder, or a database that a team shares.

Passwords have no place in addresses, which end up in files, logs and lists of processes. The
drivers of databases find them elsewhere: PostgreSQL's in ~/.pgpass, PGPASSFILE or PGPASSWORD.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nasfuse.errors import SetupError, StorageError, UsageError, hide_passwords
from nasfuse.searching.addresses import require_named
from nasfuse.searching.database import Database
from nasfuse.searching.study import Study

SCHEMES = ("postgresql://", "postgres://")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # promise, cost
DRIVER = "postgresql+psycopg://"  # version 3 of psycopg; without a name SQLAlchemy wants version 2


class Server:
    """A database that a team shares, and whose backups are its own affair."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> RDBStorage:
        """Optuna's storage there. Raises StorageError."""
        with self.using():  # a server may have been started again between two trials
            return RDBStorage(self.url, engine_kwargs={"pool_pre_ping": True})

    @contextmanager
    def using(self) -> Iterator[None]:
        """What the server and Optuna raise leaves as one kind of error."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
            raise StorageError(
                "the database of the proposals cannot be used",
                where=self.url,
                why=next(iter(str(cause).splitlines()), type(cause).__name__)[:300],
                fix="mend it, then: nasfuse resume   (nothing finished is lost)",
            ) from error

    def back_up_in_time(self) -> None:
        """Nothing: whoever runs the server backs it up."""


@dataclass(frozen=True)
class Storage:
    """A file in the study's folder or the address of a server, and what Optuna calls the study."""

    place: Path | str
    study: str = "nasfuse"

    def open(self) -> Proposals:
        """The study's proposals; where it is not there yet, it is begun.

        Raises:
            StorageError: the database cannot be used; so do all methods of what is returned.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        place = Database(self.place) if isinstance(self.place, Path) else Server(self.place)
        storage = place.open()
        with place.using():
            try:
                number = storage.create_new_study(DIRECTIONS, self.study)
            except optuna.exceptions.DuplicatedStudyError:
                number = storage.get_study_id_from_name(self.study)
        return Proposals(place, storage, number)


class Proposals:
    """All that were proposed in a study, as Optuna keeps trials.

    Without an Optuna study over it, which would hold a copy of every trial in memory. What is added
    and finished is on the disk after `write`, which keeps the order.
    """

    def __init__(self, place: Database | Server, storage: RDBStorage, study: int) -> None:
        self.place, self._storage, self._study = place, storage, study
        self._unwritten: deque[Callable[[], None]] = deque()
        self._ids = {trial.number: trial._trial_id for trial in self.all()}
        self._count = len(self._ids)

    def __len__(self) -> int:
        return self._count

    def all(self) -> list[FrozenTrial]:
        """Every trial, in order; they are on the disk then."""
        self.write()
        with self.place.using():
            trials = self._storage.get_all_trials(self._study, deepcopy=False)
        return sorted(trials, key=lambda trial: trial.number)

    def add(self, trial: FrozenTrial) -> int:
        """Keep a new one; returns its number."""
        number = self._count
        self._unwritten.append(partial(self._create, number, trial))
        self._count += 1
        return number

    def finish(self, number: int, state: TrialState, values: list[float] | None) -> None:
        """Keep what came of one, once: the first word counts."""
        self._unwritten.append(partial(self._finish, number, state, values))

    def write(self) -> None:
        """Put on the disk what is not there yet; after an error the rest can be tried again."""
        while self._unwritten:
            self._unwritten[0]()
            self._unwritten.popleft()

    def _create(self, number: int, trial: FrozenTrial) -> None:
        with self.place.using():
            self._ids[number] = self._storage.create_new_trial(self._study, trial)

    def _finish(self, number: int, state: TrialState, values: list[float] | None) -> None:
        with self.place.using(), suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._ids[number], state, values)
        self.place.back_up_in_time()


def storage_of(study: Study) -> Storage:
    """Where this study's proposals are; in a shared database its identity tells it apart.

    Raises:
        UsageError: in a database that this user has never named.
    """
    settings = study.settings
    if settings.storage is None:
        return Storage(study.folder / "study.db")
    place = require_named(settings.storage, settings.name)
    return Storage(place, f"{settings.name} {settings.id}")


def with_driver(url: str | None, option: str) -> str | None:
    """An address as it is kept: without a password, and for PostgreSQL with the driver's name.

    Raises:
        UsageError: it has a password.
    """
    if url is None:
        return None
    if hide_passwords(url) != url:
        raise UsageError(
            "an address must not have a password",
            where=f"{option} {url}",
            why="it would end up in the study's files, in logs and in the list of processes",
            fix="leave it out; PostgreSQL takes it from ~/.pgpass, PGPASSFILE or PGPASSWORD, "
            "MLflow from MLFLOW_TRACKING_PASSWORD",
        )
    for scheme in SCHEMES:
        if url.startswith(scheme):
            return DRIVER + url.removeprefix(scheme)
    return url


def require_database(url: str) -> None:
    """Connect to a database once, and write nothing.

    Raises:
        UsageError: it is no address of PostgreSQL.
        SetupError: the driver is missing, or the server refuses.
    """
    if not url.startswith(DRIVER):
        raise UsageError(
            "proposals are kept in PostgreSQL, or in the study's folder",
            where=f"--storage {url}",
            why="no other database is tested with nasfuse",
            fix="--storage postgresql://USER@HOST/DATABASE",
        )
    try:
        engine = create_engine(url)
        engine.connect().close()
        engine.dispose()
    except ImportError:
        raise SetupError(
            "the driver of PostgreSQL is not installed",
            where=f"--storage {url}",
            fix="pip install 'nasfuse[postgres]'",
        ) from None
    except (ArgumentError, SQLAlchemyError) as error:
        raise SetupError(
            "the database cannot be used",
            where=f"--storage {url}",
            why=" ".join(str(error.__cause__ or error).split())[:300],
            fix="createdb DATABASE on the server, and the password in ~/.pgpass",
        ) from None
