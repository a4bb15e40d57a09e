"""A search on a Ray cluster of three nodes: one dies, and a worker on another one stands still."""

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

TRIALS, EPOCHS = 6, 3
# in a process of its own: Ray reads its environment once, and can be started once
SCRIPT = """
import json, os, signal, sys, threading
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
doomed = cluster.add_node(num_cpus=1)
third = cluster.add_node(num_cpus=2)
nodes = {
    node.all_processes["raylet"][0].process.pid: node.node_id for node in cluster.list_all_nodes()
}

from nasfuse import api
from nasfuse.planning import SearchOptions, plan_search
from nasfuse.recipe import Recipe, Rung
from nasfuse.searching.lookout import Lookout
from nasfuse.searching.tuning import JobSearcher

put, sizes, images = ray.put, [], []
def counted(value, **options):
    reference = put(value, **options)
    if type(value).__name__ == "Task":
        images.append(reference)
        sizes.append(value.dataset.train.images.nbytes)
    return reference
ray.put = counted

said, places, killed, copies, alive = [], {}, {}, set(), []
jobs, stopped = {}, {}

def end_node():
    cluster.remove_node(doomed, allow_graceful=False)
    for worker, node in places.items():
        if node == doomed.node_id:
            os.kill(worker, signal.SIGKILL)
        elif node == third.node_id and not stopped:
            last = next(one for one in said if one["worker"] == worker)
            stopped.update(worker=worker, step=last["step"])
        else:
            os.kill(worker, signal.SIGCONT)

look = Lookout.on_step_end
def end_what_is_stopped(lookout, *unused, **options):
    # at once, for the test's sake: how long it waits has tests of its own
    if stopped and "ended" not in stopped:
        stopped["ended"] = psutil.Process(stopped["worker"]).status()
        lookout.end(jobs[stopped["worker"]])
    look(lookout, *unused, **options)
Lookout.on_step_end = end_what_is_stopped

def note(searcher, trial, result):
    # each worker is held after its first report until all have reported; then a node is ended
    job, worker = searcher.progress.running[trial][0], result["pid"]
    jobs[worker] = trial
    if worker not in places:
        places[worker] = nodes[psutil.Process(worker).ppid()]  # its node's raylet started it
    said.append({"step": job.step.key + job.step.stem, "epoch": result.get("epoch"),
                 "worker": worker, "node": places[worker], "after": bool(killed)})
    alive[:] = [sum(n["Alive"] for n in ray.nodes())]
    copies.update(ray.experimental.get_object_locations(images)[images[0]]["node_ids"])
    if not killed:
        os.kill(worker, signal.SIGSTOP)  # it waits to be told to train the next epoch
    if not killed and len(places) == 4:
        lost = next(one for one in said if one["node"] == doomed.node_id)
        killed.update(lost, alive=alive[0])
        threading.Thread(target=end_node).start()

heard, ended = JobSearcher.on_trial_result, JobSearcher.on_trial_complete
def on_result(searcher, trial_id, result):
    note(searcher, trial_id, result)
    heard(searcher, trial_id, result)
def on_complete(searcher, trial_id, result=None, error=False):
    if result and "pid" in result:
        note(searcher, trial_id, result)
    ended(searcher, trial_id, result, error)
JobSearcher.on_trial_result, JobSearcher.on_trial_complete = on_result, on_complete

plan = plan_search(SearchOptions(
    "1M", data="digits", trials=TRIALS, sampler="random", name="spread",
    studies=Path(sys.argv[1]), ray_address=cluster.address))
recipe = Recipe(rungs=(Rung(share=0.2, epochs=EPOCHS), Rung(share=0.3, epochs=2)))
plan = plan._replace(settings=plan.settings.model_copy(update={"recipe": recipe}))
outcome = api.start(plan)
stopped["left"] = psutil.pid_exists(stopped["worker"])
print(json.dumps({"killed": killed, "stopped": stopped, "said": said, "alive": alive,
    "copies": sorted(copies), "puts": sizes,
    "failed": [r.cause for r in outcome.progress.results if r.status == "failed"]}))
""".replace("TRIALS", str(TRIALS)).replace("EPOCHS", str(EPOCHS))


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A search on three nodes, of which one is killed in the middle of a training."""
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
    results = read_results(folder / "results.jsonl")
    first = [result.number for result in results if result.rung == 0 and result.repeat == 0]
    assert sorted(first) == list(range(TRIALS))
    assert set(Counter(result.step for result in results).values()) == {1}
    assert not said["failed"]


def test_what_the_dead_node_trained_goes_on_elsewhere(spread: tuple[Path, dict[str, Any]]) -> None:
    """From its last epoch, which the node wrote to the disk that all share."""
    killed, said = spread[1]["killed"], spread[1]["said"]
    assert killed["alive"] == 3
    before = [one for one in said if one["step"] == killed["step"] and not one["after"]]
    after = [one for one in said if one["step"] == killed["step"] and one["after"]]
    assert [one["epoch"] for one in before] == [1]
    assert [one["epoch"] for one in after] == [*range(2, EPOCHS), None]
    assert {one["node"] for one in before} == {killed["node"]}
    assert killed["node"] not in {one["node"] for one in said if one["after"]}


def test_a_worker_that_is_stopped_on_another_node_is_ended(
    spread: tuple[Path, dict[str, Any]],
) -> None:
    """And its training goes on from its last epoch."""
    stopped, said = spread[1]["stopped"], spread[1]["said"]
    assert stopped["ended"] == "stopped"
    assert not stopped["left"]
    after = [one for one in said if one["step"] == stopped["step"] and one["after"]]
    assert [one["epoch"] for one in after] == [*range(2, EPOCHS), None]
    assert stopped["worker"] not in {one["worker"] for one in said if one["after"]}


def test_images_go_to_each_node_once(spread: tuple[Path, dict[str, Any]]) -> None:
    """Put into the object store once, and copied to the nodes that train, not to each worker."""
    said = spread[1]["said"]
    assert len(spread[1]["puts"]) == 1
    assert spread[1]["puts"][0] > 50_000
    nodes = {one["node"] for one in said}
    workers = {one["worker"] for one in said if not one["after"]}
    assert set(spread[1]["copies"]) >= nodes
    assert len(spread[1]["copies"]) == len(nodes) == 3
    assert len(workers) == 4
