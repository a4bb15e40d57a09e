"""Four searches at once on one machine, with more workers than it has cores."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import datetime

import pytest

from nasfuse.searching.study import Study

SEARCHES, TRIALS = 4, 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Study, str]]:
    """Four searches that were started at the same moment, without names, and what they said."""
    tmp = tmp_path_factory.mktemp("together")
    recipe = tmp / "recipe.yaml"
    recipe.write_text("{rungs: [{share: 0.1, epochs: 1}, {share: 0.2, epochs: 1}]}")
    asked = ["--budget", "1M", "--data", "digits", "--recipe", str(recipe), "--workers", "1"]
    command = [sys.executable, "-m", "nasfuse", "search", *asked, "--trials", str(TRIALS), "--json"]
    environment = {**os.environ, "NASFUSE_STUDIES": str(tmp / "studies")}
    running = [
        subprocess.Popen(
            [*command, "--seed", str(seed)],
            env=environment,
            cwd=tmp,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(SEARCHES)
    ]
    said = [search.communicate() for search in running]
    assert [search.returncode for search in running] == [0] * SEARCHES, said
    names = [json.loads(out)["study"] for out, _ in said]
    errors = [err for _, err in said]
    return [(Study.open(tmp / "studies" / n), e) for n, e in zip(names, errors, strict=True)]


def test_each_has_a_study_of_its_own_and_all_of_it(
    together: list[tuple[Study, str]],
) -> None:
    assert len({study.folder for study, _ in together}) == SEARCHES
    assert len({study.settings.id for study, _ in together}) == SEARCHES
    for seed, (study, _) in enumerate(together):
        assert study.settings.seed == seed
        results = study.results
        assert {result.number for result in results if result.rung == 0} == set(range(TRIALS))
        assert {result.seed for result in results} == {seed}
        assert max(Counter(result.step for result in results).values()) == 1
        assert all(result.status == "complete" for result in results)
        folders = {path.name for path in (study.folder / "trials").iterdir()}
        assert folders == {result.key for result in results}
        assert not (study.folder / "ray").exists()


def test_they_went_on_beside_each_other(
    together: list[tuple[Study, str]],
) -> None:
    """None waited for another's end: each had a result before any had its last."""
    times = [[datetime.fromisoformat(r.finished) for r in s.results] for s, _ in together]
    assert max(min(own) for own in times) <= min(max(own) for own in times)


def test_one_mlflow_store_shows_them_all(together: list[tuple[Study, str]]) -> None:
    """They all began at a store that was not there yet."""
    lines = [line for _, said in together for line in said.splitlines()]
    assert not [line for line in lines if "MLflow does not show" in line]
    with sqlite3.connect(together[0][0].folder.parent / "mlflow.db") as database:
        rows = database.execute("select value from tags where key = 'nasfuse.key'").fetchall()
        states = {row[0] for row in database.execute("select status from runs")}
    keys = [result.key for study, _ in together for result in study.results if result.rung == 0]
    assert sorted(key for (key,) in rows) == sorted(keys)
    assert states == {"FINISHED"}
