"""Explaining end to end: swaps on real Ray workers, killed in the middle; nothing is trained twice.

The study is made by hand, with one network and a recipe of a few steps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nasfuse.network import cost
from nasfuse.planning import SearchOptions, plan_search
from nasfuse.results import Result, read_results
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.study import Study

SWAPS, SEEDS = 2, 2
COMMAND = [sys.executable, "-m", "nasfuse", "explain", "made", "--workers", "1", "--json"]
ASKED = [*COMMAND, "--swaps", str(SWAPS), "--seeds", str(SEEDS)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with one fully trained network, as far as its files say."""
    tmp = tmp_path_factory.mktemp("explain")
    recipe = tmp / "recipe.yaml"
    recipe.write_text("rungs: [{share: 0.02, epochs: 1}, {share: 0.03, epochs: 2}]")
    options = SearchOptions(
        budget="500KMACs", name="made", trials=1, recipe=recipe, studies=tmp / "studies"
    )
    plan = plan_search(options)
    study = Study.create(plan.folder, plan.settings)
    candidate = plan.settings.search_space.sample(1)
    architecture = fit_to_budget(candidate.architecture, candidate.scaling, 400_000)
    price = cost(architecture)
    for rung in (0, 1):
        result = Result(
            key=architecture.key,
            number=0,
            rung=rung,
            origin="guided",
            status="complete",
            architecture=architecture,
            macs=price.macs,
            params=price.params,
            thop=price.thop,
            accuracy=0.5,
            calibrated_loss=1.0,
            seconds=1.0,
            seed=0,
            data=plan.settings.fingerprint,
            versions={},
            finished="2026-01-01T00:00:00+00:00",
        )
        study.record(result)
    return study


@contextmanager
def started(study: Study) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "NASFUSE_STUDIES": str(study.folder.parent)}
    with subprocess.Popen(
        ASKED,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process


def test_a_killed_one_goes_on_and_trains_nothing_twice(made: Study) -> None:
    path = made.folder / "swaps" / "results.jsonl"
    before = made.results
    with started(made) as killed:
        deadline = time.monotonic() + 240
        while not path.exists() or path.read_text().count("\n") < 3:
            assert time.monotonic() < deadline, "no results"
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    done = read_results(path)
    with started(made) as process:
        output, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    after = read_results(path)
    assert after[: len(done)] == done
    assert max(Counter(result.step for result in after).values()) == 1
    assert len(after) == (1 + SWAPS) * SEEDS
    assert all(result.status == "complete" for result in after), [r.cause for r in after]
    assert made.results == before, "neither the front nor a sampler sees them"
    check_document(json.loads(output), after)
    assert not list(made.folder.glob("swaps/trials/*/*.safetensors"))
    report = made.folder / "report"
    assert "## Swaps" in (report / "report.md").read_text()
    assert (report / "fusion_swaps.png").exists()


def check_document(document: dict[str, Any], trained: list[Result]) -> None:
    swaps = document["swaps"]
    assert len(swaps) == SWAPS
    assert {swap["seeds"] for swap in swaps} == {SEEDS}
    assert {swap["swap_key"] for swap in swaps} <= {result.key for result in trained}
    assert document["level"] is None
    macs = {result.macs for result in trained}
    assert max(macs) <= 400_000


def test_once_more_trains_nothing(made: Study) -> None:
    path = made.folder / "swaps" / "results.jsonl"
    before = path.read_text()
    with started(made) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert path.read_text() == before
