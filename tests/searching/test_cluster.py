"""A search on a Ray cluster of several nodes, one of which dies on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nasfuse.results import read_results

TRIALS = 6
# in a process of its own: Ray reads its environment once, and can be started once
SCRIPT = """
import json, os, sys, threading, time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
doomed = cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=1)

from nasfuse import api
from nasfuse.planning import SearchOptions
from nasfuse.recipe import Recipe, Rung
from nasfuse.planning import plan_search

put, puts = ray.put, []
def counted(value, **options):
    puts.append(type(value).__name__)
    return put(value, **options)
ray.put = counted

killed = {}
def listen(progress):
    if len(progress.results) >= 2 and progress.running and not killed:
        killed["at"] = len(progress.results)
        killed["nodes"] = len([n for n in ray.nodes() if n["Alive"]])
        threading.Thread(target=cluster.remove_node, args=(doomed, False)).start()

plan = plan_search(SearchOptions(
    "1M", data="digits", trials=TRIALS, sampler="random", name="spread",
    studies=Path(sys.argv[1]), ray_address=cluster.address))
recipe = Recipe(rungs=(Rung(share=0.2, epochs=2), Rung(share=0.3, epochs=2)))
plan = plan._replace(settings=plan.settings.model_copy(update={"recipe": recipe}))
outcome = api.start(plan, listen=listen)
print(json.dumps({"killed": killed, "puts": puts, "failed": [
    r.cause for r in outcome.progress.results if r.status == "failed"]}))
""".replace("TRIALS", str(TRIALS))


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A search on three nodes, of which one is killed after two results."""
    studies = tmp_path_factory.mktemp("studies")
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(studies)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return studies / "spread", json.loads(run.stdout.splitlines()[-1])


pytestmark = pytest.mark.slow


def test_nothing_is_lost_or_trained_twice(spread: tuple[Path, dict[str, Any]]) -> None:
    folder, said = spread
    assert said["killed"]["nodes"] == 3
    assert said["killed"]["at"] < TRIALS
    results = read_results(folder / "results.jsonl")
    first = [result.number for result in results if result.rung == 0 and result.repeat == 0]
    assert sorted(first) == list(range(TRIALS))
    assert set(Counter(result.step for result in results).values()) == {1}
    assert not said["failed"]


def test_images_go_to_the_object_store_once(spread: tuple[Path, dict[str, Any]]) -> None:
    assert spread[1]["puts"].count("Task") == 1
