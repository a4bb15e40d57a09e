"""An empty store of MLflow's to begin with, kept in the cache: to make one takes three seconds.

MLflow makes its tables by all the migrations that there have ever been.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from nasfuse.data.downloads import cache_folder
from nasfuse.errors import StorageError
from nasfuse.files import replacing


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Around what makes a store: begun with a copy where the cache has one, else kept there.

    Where the cache, or the store, cannot be used, it is left to MLflow to make it or to say so.
    """
    if path.exists():
        yield
        return
    kept = cache_folder() / f"mlflow-{version('mlflow')}.db"
    if _is_whole(kept):
        with suppress(OSError, StorageError), replacing(path) as part:
            shutil.copyfile(kept, part)
    yield
    if not kept.exists():
        with suppress(OSError, StorageError, sqlite3.Error), replacing(kept) as part:
            _copy(path, part)


def _is_whole(kept: Path) -> bool:
    """Whether it can be used; one that is damaged is removed."""
    if not kept.is_file():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(kept)) as store:
        if store.execute("pragma quick_check").fetchone() == ("ok",):
            return True
    with suppress(OSError):
        kept.unlink()
    return False


def _copy(path: Path, part: Path) -> None:
    """The tables of a new store; the default experiment, which knows its folder, is made anew."""
    with closing(sqlite3.connect(path)) as made, closing(sqlite3.connect(part)) as copy:
        made.backup(copy)
        copy.execute("delete from experiments")
        copy.commit()
