"""study.db: Optuna's storage of a study, looked at before it is used and backed up meanwhile."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
from optuna.storages import RDBStorage

from nasfuse.errors import NasfuseError, StorageError
from nasfuse.files import free_space, full_disk, replacing

BACKUP_SECONDS = 600.0  # between two backups, of the search's own clock
BUSY_SECONDS = 30.0  # for which another program may hold the database
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class Database:
    """An SQLite file in a study's folder, and beside it the backup of an earlier state.

    Where the file is missing and no backup is there, `open` makes it, whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.backup = self.path.with_name(f"{self.path.name}.bak")
        self._kept = 0.0

    def open(self) -> RDBStorage:
        """Optuna's storage in the file, which is whole and backed up then.

        Raises:
            StorageError: the file is damaged, missing, locked, of another version of Optuna or
                cannot be written; nothing has changed then.
        """
        if not self.path.exists():
            if self.backup.exists():
                raise self._damaged("is missing")
            self._create()
        self.back_up()
        with self.using():
            return _storage(self.path)

    def back_up(self) -> None:
        """Replace the backup by the state of now, if that is whole.

        Raises:
            StorageError: it is not, or the disk is full; the backup is as it was then.
        """
        self._kept = time.monotonic()
        with self.using(), replacing(self.backup) as copy, closing(_connect(self.path)) as source:
            source.execute("BEGIN")  # what follows waits for a lock, the backup itself for ever
            if not source.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
                raise self._damaged(f"holds no trials ({self.path.stat().st_size} bytes)")
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self._damaged(found)

    def back_up_in_time(self) -> None:
        """Back up where the last time was long ago."""
        if time.monotonic() - self._kept > BACKUP_SECONDS:
            self.back_up()

    @contextmanager
    def using(self) -> Iterator[None]:
        """What SQLite and Optuna raise leaves as a StorageError that says what to do."""
        try:
            yield
        except (NasfuseError, OSError):
            raise
        except (ValueError, LookupError, TypeError) as error:  # of what the file's text should be
            raise self._damaged(f"{type(error).__name__}: {error}"[:200]) from error
        except Exception as error:
            fault = _fault(error)
            if fault is None:
                raise
            raise self._refusal(fault) from error

    def _create(self) -> None:
        with self.using(), replacing(self.path) as new:
            new.touch()
            storage = _storage(new)
            storage.remove_session()
            storage.engine.dispose()

    def _refusal(self, fault: sqlite3.Error | RuntimeError) -> StorageError:
        name = getattr(fault, "sqlite_errorname", "")
        if name.startswith(DAMAGED):
            return self._damaged(str(fault))
        if name == "SQLITE_FULL":
            free = free_space(self.path)
            needed = self.path.stat().st_size if self.path.exists() else 0
            return full_disk(self.path, needed=max(needed, free), free=free)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StorageError(
                "another program holds the study's database",
                where=str(self.path),
                why=f"it was waited for for at least {BUSY_SECONDS:g} seconds; "
                f"open in {_users(self.path) or 'a process that cannot be seen from here'}",
                fix=f"end that program, then: nasfuse resume {self._study}",
            )
        if isinstance(fault, RuntimeError):
            return self._other_version(str(fault))
        return StorageError(
            "the study's database cannot be used", where=str(self.path), why=f"{fault} ({name})"
        )

    def _damaged(self, why: str) -> StorageError:
        """An error with the commands that put the backup in the place of the file."""
        here, journal = self.path, Path(f"{self.path}-journal")
        # a journal belongs to the file that it lies beside: with another one it would destroy it
        leave = [f"rm {shlex.quote(str(journal))}"] if journal.exists() else []
        if self.backup.exists():
            age = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.backup.stat().st_mtime))
            which = f"{self.backup.name} is whole, from {age}"
            step = f"cp {shlex.quote(str(self.backup))} {shlex.quote(str(here))}"
        else:
            which = "there is no backup; the results themselves are in results.jsonl"
            step = f"mv {shlex.quote(str(here))} {shlex.quote(f'{here}.damaged')}"
        commands = [*leave, step, f"nasfuse resume {self._study}"]
        return StorageError(
            "the study's database is damaged",
            where=str(here),
            why=f"{' '.join(why.split())}; {which}",
            fix=" && ".join(commands),
        )

    @property
    def _study(self) -> str:
        return shlex.quote(str(self.path.parent))

    def _other_version(self, why: str) -> StorageError:
        older = "storage upgrade" in why
        url = shlex.quote(f"sqlite:///{self.path}")
        return StorageError(
            f"the study's database was written by {'an older' if older else 'a newer'} Optuna",
            where=str(self.path),
            why=why.split(". ")[0],
            fix=f"optuna storage upgrade --storage {url}"
            if older
            else "pip install --upgrade nasfuse optuna",
        )


def _connect(path: Path) -> sqlite3.Connection:
    """To a file that exists. For writing: what a killed process left half-written is undone."""
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _storage(path: Path) -> RDBStorage:
    # Optuna takes an address apart, in which '?', '#' and '{' of a path would mean something
    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": lambda: _connect(path)})


def _fault(error: BaseException | None) -> sqlite3.Error | RuntimeError | None:
    """What SQLite said, or Optuna of the file's version, below the errors that came of it."""
    while error is not None:
        if isinstance(error, sqlite3.Error):
            return error
        if isinstance(error, RuntimeError) and "optuna" in str(error):
            return error
        error = error.__cause__ or error.__context__
    return None


def _users(path: Path) -> str:
    """Other processes that have a file open."""
    found = [
        f"process {process.pid} ({process.info['name']})"
        for process in psutil.process_iter(["name", "open_files"])
        if process.pid != os.getpid()
        and any(file.path == str(path) for file in process.info["open_files"] or [])
    ]
    return ", ".join(found)
