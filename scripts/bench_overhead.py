"""What a search costs besides training: the start, and the time between two trials of a worker.

    python scripts/bench_overhead.py [--trials 24] [--workers 2] [--budget 4MFLOPs] [--share 0.5]
        [--json]

Runs a real search of short trainings only, of which nothing is promoted, and then as many trainings
of the same kind through Ray Tune's own OptunaSearch with its default settings. How long a trial
takes depends on the processor, on `--budget`, and on `--share` of the images; the mean is printed,
for of shorter trials the same overhead is a larger share.

Overhead is the time between two trials of a worker, from the result of one to the beginning of the
next, as a share of its time: what a worker has to wait for the driver and Ray; its own files, some
milliseconds, belong to the trial. The start is that of the search, after its imports. What workers
are idle in all is shown beside it: one of them starts later than the other, and waits at the end
for the other's last trial. The breakdown shows where the driver of ours spent its time; some of it
passes while workers train.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasfuse import api, view
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure, subset
from nasfuse.data.load import load_dataset
from nasfuse.network import build
from nasfuse.planning import SearchOptions
from nasfuse.recipe import Recipe, Rung
from nasfuse.scaling import fit_to_budget
from nasfuse.searching import proposing, schedule, storage, study
from nasfuse.space import PatternTrial, load_space
from nasfuse.training import Training, evaluate, recalibrate, reserve_memory

CPU = torch.device("cpu")
Timed = tuple[Any, str, str]
DRIVER: list[Timed] = [
    (proposing.Proposer, "propose", "propose: sampler, fit"),
    (proposing.Proposer, "tell", "tell"),
    (storage.Proposals, "_create", "database: a proposal, while workers work"),
    (storage.Proposals, "_finish", "database: what was told, while workers work"),
    (study.Study, "record", "results.jsonl: one line, synced"),
    (schedule.Schedule, "_ahead", "promotions"),
    (view.View, "_sync", "MLflow, in a thread of its own"),
    (view.View, "finish", "report and MLflow, at the end"),
]


class Stopwatch:
    """Seconds and calls of functions, by what they do."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def around(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[label] += time.perf_counter() - began
                self.calls[label] += 1

        return timed


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """A search of short trainings, timed from outside."""
    watch = Stopwatch()
    for owner, name, label in DRIVER:
        setattr(owner, name, watch.around(getattr(owner, name), label))
    ends: list[tuple[float, float]] = []  # when each trial ended, and its seconds
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        rungs = [Rung(share=options.share, epochs=1), Rung(share=1.0, epochs=1)]
        recipe.write_text(Recipe(rungs=tuple(rungs)).model_dump_json())
        asked = SearchOptions(
            budget=options.budget,
            recipe=recipe,
            trials=options.trials,
            workers=options.workers,
            sampler=options.sampler,
            studies=Path(folder),
        )
        schedule.Schedule._due = lambda self, least: []  # type: ignore[method-assign]
        began = time.time()

        def listen(progress: schedule.Progress) -> None:
            ends.extend((time.time(), r.seconds) for r in progress.results[len(ends) :])

        results = api.search(asked, listen=listen).progress.results
        whole = time.time() - began
    spans = [(ended - seconds, ended) for ended, seconds in ends]
    first, last = min(spans)[0], max(ended for _, ended in spans)
    return {
        "trials": len(results),
        "mean trial (s)": round(float(np.mean([result.seconds for result in results])), 2),
        "start to the first trial running (s)": round(first - began, 2),
        "after the last trial (s)": round(began + whole - last, 2),
        **overhead(spans, options.workers),
        "driver": {
            label: {
                "calls": watch.calls[label],
                "ms a call": round(1e3 * s / watch.calls[label], 1),
            }
            for label, s in watch.seconds.items()
        },
    }


def overhead(spans: list[tuple[float, float]], workers: int) -> dict[str, float]:
    """What passed between trials, each of which goes to the worker that has waited the least."""
    free: list[float] = []  # when workers ended their last trial
    waits = []
    for began, ended in sorted(spans):
        if idle := [end for end in free if end <= began]:
            free.remove(max(idle))
            waits.append(began - max(idle))
        free.append(ended)
    trained = sum(ended - began for began, ended in spans)
    whole = workers * (max(ended for _, ended in spans) - min(spans)[0])
    return {
        "between two trials, mean (s)": round(float(np.mean(waits)), 3),
        "between two trials, median (s)": round(float(np.median(waits)), 3),
        "overhead": round(sum(waits) / (trained + sum(waits)), 4),
        "idle, first start to last end": round(1 - trained / whole, 4),
    }


def train_once(config: Mapping[str, Any], setting: Mapping[str, Any]) -> None:
    """What a user of Ray Tune writes: data, network, training, one report."""
    from ray import tune

    reserve_memory()
    began = time.time()
    dataset = load_dataset("sample", side=64, seed=0)
    normalisation, device = measure(dataset.train), CPU
    space = load_space("default").for_images(
        channels=dataset.channels, classes=len(dataset.classes)
    )
    candidate = space.suggest(PatternTrial(dict(config)))
    share = max(config["share"], 0.2)
    fitted = fit_to_budget(
        candidate.architecture, candidate.scaling, int(share * setting["budget"])
    )
    train = subset(dataset.train, setting["share"], 0)
    images = Images.of(train, normalisation, resolution=fitted.resolution, device=device)
    validation = Images.of(
        dataset.validation, normalisation, resolution=fitted.resolution, device=device
    )
    training = Training(build(fitted), images, Recipe(), epochs=1, seed=0)
    training.epoch()
    recalibrate(training.network, images)
    accuracy = evaluate(training.network, validation).accuracy
    tune.report({"accuracy": accuracy, "began": began, "ended": time.time()})


def suggest(trial: Any) -> None:
    """The parameters of the same space, as OptunaSearch wants them."""
    trial.suggest_float("share", proposing.SMALLEST_SHARE, 1.0, log=True)
    load_space("default").suggest(trial)


def theirs(options: argparse.Namespace) -> dict[str, Any]:
    """The same kind of trials through Ray Tune and its OptunaSearch, all defaults."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    setting = {"budget": parse_budget(options.budget), "share": options.share}
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        ray.init("local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train_once, setting=setting), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(suggest, metric="accuracy", mode="max"),
                num_samples=options.trials,
                max_concurrent_trials=options.workers,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        metrics = [result.metrics for result in tuner.fit() if result.metrics]
        ray.shutdown()
    spans = [(m["began"], m["ended"]) for m in metrics if "ended" in m]
    return {
        "trials": len(spans),
        "mean trial (s)": round(float(np.mean([ended - start for start, ended in spans])), 2),
        "start to the first trial running (s)": round(min(spans)[0] - began, 2),
        **overhead(spans, options.workers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", default="4MFLOPs")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--sampler", default=SearchOptions(budget="1M").sampler)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # for settings of ours that Ray would read
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        runs = {"nasfuse": ours, "Ray Tune's OptunaSearch": theirs}
        found = {name: pool.submit(run, options).result() for name, run in runs.items()}
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    machine = f"{platform.machine()}, {versions}, {options.workers} workers"
    if options.json:
        print(json.dumps({"machine": machine, **found}))
        return
    print(machine)
    for name, figures in found.items():
        print(name)
        for label, value in figures.items():
            if label != "driver":
                print(f"  {label:<42} {value}")
        for label, cost in figures.get("driver", {}).items():
            print(f"    {label:<40} {cost['calls']:>4} calls, {cost['ms a call']} ms each")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
