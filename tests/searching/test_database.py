"""study.db damaged, missing, locked or of another version; and what its backup gives back."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nasfuse.errors import StorageError
from nasfuse.results import Result
from nasfuse.searching import database
from nasfuse.searching.database import Database
from nasfuse.searching.proposing import Proposer
from nasfuse.searching.storage import Storage
from nasfuse.space import load_space

MakeResult = Callable[..., Result]
# what a shell and an address of a database would each read something into
FOLDER = "étude 网络 100%41 #1?x {y}'s"


def proposer(folder: Path) -> Proposer:
    space = load_space("default")
    return Proposer(Storage(folder / "study.db"), space, budget=1_000_000, sampler="random", seed=0)


@pytest.fixture
def folder(tmp_path: Path, searched: Path) -> Path:
    return shutil.copytree(searched, tmp_path / FOLDER)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a database of three trials, two of them told, and its backup."""
    folder = tmp_path_factory.mktemp("searched")
    made = proposer(folder)
    for accuracy in (0.5, 0.6, None):
        proposal = made.propose()
        assert proposal is not None
        if accuracy is not None:
            made.tell(proposal.number, value=accuracy, cost=proposal.cost.macs)
    made.keep()
    Database(folder / "study.db").back_up()
    return folder


def trials(path: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("select number, state from trials order by number").fetchall()


TOLD = [(0, "COMPLETE"), (1, "COMPLETE"), (2, "RUNNING")]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_in_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def fill_with_garbage(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 3)
        file.write(random.Random(0).randbytes(20_000))


def overwrite_the_start(path: Path) -> None:
    with path.open("rb+") as file:
        file.write(b"<!DOCTYPE html>" * 20)


def replace_by_another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("create table notes (text)")


DAMAGES = [
    truncate, cut_in_a_page, empty, fill_with_garbage, overwrite_the_start, replace_by_another,
    Path.unlink,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_refused_and_its_backup_restored_by_what_is_said(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    path, backup = folder / "study.db", folder / "study.db.bak"
    damage(path)
    damaged, kept = path.exists() and path.read_bytes(), backup.read_bytes()
    with pytest.raises(StorageError, match="database is damaged") as caught:
        proposer(folder)
    assert caught.value.exit_code == 8
    assert "study.db.bak is whole" in caught.value.why
    assert (path.exists() and path.read_bytes()) == damaged, "nothing has changed"
    assert backup.read_bytes() == kept
    commands, _, again = caught.value.fix.rpartition(" && ")
    assert shlex.split(again) == ["nasfuse", "resume", str(folder)]
    subprocess.run(commands, shell=True, check=True)
    assert [p.number for p in proposer(folder).unfinished()] == [2]
    assert trials(path) == TOLD


@pytest.mark.parametrize(("name", "value"), [("architecture", '"{"'), ("origin", None)])
def test_what_a_proposal_lacks_is_said(folder: Path, name: str, value: str | None) -> None:
    with sqlite3.connect(folder / "study.db") as connection:
        change = f"update trial_user_attributes set value_json = '{value}'"
        what = "delete from trial_user_attributes" if value is None else change
        connection.execute(f"{what} where key = ?", (name,))
    with pytest.raises(StorageError, match="database is damaged"):
        proposer(folder).unfinished()


def test_a_value_of_no_kind_is_refused(folder: Path) -> None:
    with sqlite3.connect(folder / "study.db") as connection:
        connection.execute("update trial_values set value_type = 'FINI]E'")
    with pytest.raises(StorageError, match="database is damaged"):
        proposer(folder)


def test_garbage_anywhere_is_refused_or_harmless(folder: Path) -> None:
    """Each page in turn: SQLite has no checksums, so what is in a text may pass as another one."""
    path = folder / "study.db"
    whole, refused = path.read_bytes(), 0
    for start in range(0, len(whole), 4096):
        garbage = random.Random(start).randbytes(4096)
        path.write_bytes(whole[:start] + garbage + whole[start + 4096 :])
        try:
            proposer(folder)
        except StorageError:
            refused += 1
        else:
            assert trials(path) == TOLD
    assert refused > 0.9 * len(whole) / 4096


def test_without_a_backup_the_results_are_what_is_left(
    folder: Path, make_result: MakeResult
) -> None:
    path = folder / "study.db"
    (folder / "study.db.bak").unlink()
    empty(path)
    with pytest.raises(StorageError, match="damaged") as caught:
        proposer(folder)
    assert "no backup" in caught.value.why
    subprocess.run(caught.value.fix.rpartition(" && ")[0], shell=True, check=True)
    again = proposer(folder)
    again.catch_up([make_result(0), make_result(3, status="failed", accuracy=None, cause="why")])
    assert trials(path) == [(0, "COMPLETE"), (1, "FAIL"), (2, "FAIL"), (3, "FAIL")]


def test_what_was_tried_after_the_backup_is_not_tried_again(
    folder: Path, make_result: MakeResult
) -> None:
    made = proposer(folder)
    proposal = made.propose()
    assert proposal is not None
    made.tell(3, value=0.7, cost=1.0)
    result = make_result(3, key=proposal.architecture.key, accuracy=0.7)
    path, backup = folder / "study.db", folder / "study.db.bak"
    os.replace(backup, path)
    for _ in range(2):  # once more changes nothing
        again = proposer(folder)
        again.catch_up([result])
        assert trials(path) == [*TOLD, (3, "COMPLETE")]
        assert again.proposed == 4
    following = again.propose()
    assert following is not None
    assert following.number == 4
    assert following.architecture.key != result.key
    again.tell(4, value=0.1, cost=1.0)


def test_a_backup_follows_the_search(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, backup = proposer(folder), folder / "study.db.bak"
    before = backup.read_bytes()
    made.tell(2, value=0.8, cost=1.0)
    assert backup.read_bytes() == before, "it is not made anew for each result"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + database.BACKUP_SECONDS + 1)
    proposal = made.propose()
    assert proposal is not None
    made.tell(proposal.number, value=0.8, cost=1.0)
    assert trials(backup) == trials(folder / "study.db")
    truncate(folder / "study.db")
    kept = backup.read_bytes()
    with pytest.raises(StorageError, match="damaged"):
        Database(folder / "study.db").back_up()
    assert backup.read_bytes() == kept, "a good one is not replaced by a bad one"
    assert sorted(p.name for p in folder.iterdir()) == ["study.db", "study.db.bak"]


def test_a_journal_of_a_killed_writer_does_not_reach_the_backup(folder: Path) -> None:
    """The journal belongs to the damaged file; it would damage the one put in its place."""
    path = folder / "study.db"
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('begin immediate')\n"
        "db.execute('update trial_user_attributes set value_json = hex(randomblob(5000))')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert Path(f"{path}-journal").stat().st_size > 0
    path.unlink()
    with pytest.raises(StorageError, match="damaged") as caught:
        proposer(folder)
    subprocess.run(caught.value.fix.rpartition(" && ")[0], shell=True, check=True)
    proposer(folder)
    assert trials(path) == TOLD


def test_a_locked_database_names_who_holds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "study.db"
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('begin exclusive'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="another program holds") as caught:
            Database(path).open()
        holder.communicate()
    assert caught.value.exit_code == 8
    if sys.platform == "linux":
        assert f"process {holder.pid} (" in caught.value.why
    assert trials(path) == TOLD
    proposer(folder)


@pytest.mark.parametrize(
    ("version", "said", "fix"),
    [
        ("v1.2.0.a", "written by an older Optuna", "optuna storage upgrade --storage "),
        ("v99.0.0.a", "written by a newer Optuna", "pip install --upgrade"),
    ],
)
def test_a_database_of_another_optuna_is_refused(
    folder: Path, version: str, said: str, fix: str
) -> None:
    path = folder / "study.db"
    with sqlite3.connect(path) as connection:
        connection.execute("update alembic_version set version_num = ?", (version,))
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=said) as caught:
        proposer(folder)
    assert caught.value.exit_code == 8
    assert caught.value.fix.startswith(fix)
    assert path.read_bytes() == before
