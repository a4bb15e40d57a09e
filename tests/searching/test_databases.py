"""Proposals in a database that a team shares: PostgreSQL, a real one where it is installed."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from ray.tune.search import Searcher

from nasfuse.errors import NasfuseError, SetupError, StorageError, UsageError, hide_passwords
from nasfuse.planning import SearchOptions, plan_search
from nasfuse.searching.addresses import remember
from nasfuse.searching.logbook import logbook
from nasfuse.searching.storage import Storage, require_database, storage_of, with_driver
from nasfuse.searching.study import Settings, Study
from nasfuse.searching.tuning import JobSearcher

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:{SECRET}@db/x", "postgresql://me:***@db/x"),
        (f"postgresql+psycopg://:{SECRET}/@{SECRET}@db", "postgresql+psycopg://:***@db"),
        (f"it is postgresql://db/x?password={SECRET}&a=1", "it is postgresql://db/x?password=***&a=1"),
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
        ("sqlite:////tmp/a b/mlflow.db", "sqlite:////tmp/a b/mlflow.db"),
        ("postgresql://me@db:5432/x", "postgresql://me@db:5432/x"),
    ],
)  # fmt: skip
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
    error = NasfuseError(text, where=text, why=text, fix=text)
    assert SECRET not in f"{error} {error.what} {error.args}"


def test_the_log_of_a_study_has_no_passwords(tmp_path: Path) -> None:
    with logbook(tmp_path / "log.txt"):
        try:
            raise ValueError(f"postgresql://me:{SECRET}@db/x is gone")  # a line of the trace
        except ValueError:
            logging.getLogger("mlflow").exception("cannot reach mysql://me:%s@db", SECRET)
    text = (tmp_path / "log.txt").read_text()
    assert text.count("***@db") >= 2  # the message, the error, the lines of the code
    assert f":{SECRET}" not in text


@pytest.mark.parametrize("option", ["storage", "tracking_uri"])
def test_an_address_with_a_password_is_refused(tmp_path: Path, option: str) -> None:
    address = f"postgresql://me:{SECRET}@localhost/x"
    options = SearchOptions("4M", studies=tmp_path, **cast("Any", {option: address}))
    with pytest.raises(UsageError, match="password") as caught:
        plan_search(options)
    assert SECRET not in str(caught.value)
    assert "PGPASSFILE" in caught.value.fix


def test_an_address_names_the_driver() -> None:
    assert with_driver("postgres://a@b/c", "--storage") == "postgresql+psycopg://a@b/c"
    assert with_driver("http://127.0.0.1:5000", "--storage") == "http://127.0.0.1:5000"


def test_other_databases_are_refused() -> None:
    with pytest.raises(UsageError, match="PostgreSQL"):
        require_database("mysql://a@b/c")


def test_a_server_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    address = f"postgresql+psycopg://me@/x?host={tmp_path}"
    with pytest.raises(SetupError, match="cannot be used") as caught:
        require_database(address)
    assert str(tmp_path) in caught.value.why
    with pytest.raises(StorageError) as broken:
        Storage(address).open()
    assert broken.value.exit_code == 8


def test_a_proposal_that_cannot_be_kept_ends_the_search() -> None:
    problem = StorageError("the database cannot be used", why="it is gone")

    def fail() -> None:
        raise problem

    progress = SimpleNamespace(running={}, broken=None)
    schedule = SimpleNamespace(progress=progress, workers=1, next=fail)
    searcher = JobSearcher(cast("Any", schedule), cast("Any", None), lambda _: None)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert progress.broken is problem


def test_a_study_in_a_shared_database_is_told_apart(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    url = "postgresql+psycopg://me@db/x"
    remember(url)
    ours = Study(tmp_path / "a", make_settings("a", id="1" * 16, storage=url))
    theirs = Study(tmp_path / "b" / "a", make_settings("a", id="2" * 16, storage=url))
    assert storage_of(ours).place == url
    assert storage_of(ours) != storage_of(theirs)
    assert storage_of(Study(tmp_path, make_settings())).place == tmp_path / "study.db"


def test_optuna_and_mlflow_need_two_databases(tmp_path: Path, postgres: Any) -> None:
    address = postgres.url(postgres.create())
    options = SearchOptions("4M", studies=tmp_path, storage=address, tracking_uri=address)
    with pytest.raises(UsageError, match="two databases"):
        plan_search(options)


@pytest.mark.slow
def test_a_search_with_everything_in_postgresql(tmp_path: Path, postgres: Any) -> None:
    """Proposals and MLflow's runs are there, resuming goes on from them, and no file has them."""
    database, runs = postgres.create(), postgres.create()
    address, mlflow = (  # as their users write them
        postgres.url(name).replace("+psycopg", "") for name in (database, runs)
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{rungs: [{share: 0.05, epochs: 1}, {share: 0.1, epochs: 1}]}")
    environment = {**os.environ, "NASFUSE_STUDIES": str(tmp_path / "s"), "NASFUSE_STORAGE": address}

    def run(*words: str) -> Any:
        command = [sys.executable, "-m", "nasfuse", *words, "--workers", "1", "--json"]
        ended = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    asked = ["--budget", "1M", "--data", "digits", "--recipe", str(recipe), "--name", "shared"]
    run("search", *asked, "--sampler", "random", "--trials", "3", "--tracking-uri", mlflow)
    run("resume", "--trials", "5")
    study = Study.open(tmp_path / "s" / "shared")
    assert not (study.folder / "study.db").exists()
    assert not (tmp_path / "s" / "mlflow.db").exists()
    kept = optuna.load_study(study_name=storage_of(study).study, storage=postgres.url(database))
    assert [trial.state.name for trial in kept.trials] == ["COMPLETE"] * 5
    first = {result.number: result.key for result in study.results if result.rung == 0}
    assert first == {trial.number: trial.user_attrs["key"] for trial in kept.trials}
    import psycopg

    with psycopg.connect(mlflow) as connection:
        rows = connection.execute("select value from tags where key = 'nasfuse.key'").fetchall()
    assert sorted(key for (key,) in rows) == sorted(first.values())
