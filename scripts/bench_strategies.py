"""How much compute does it take to find a network as good as random search does?

    python scripts/bench_strategies.py --out FOLDER [--budget 1MFLOPs] [--data sample] [--epochs 5]
        [--trainings 16] [--seeds 3] [--workers 2] [--json]

Runs four strategies on one space, with one trainer, and counts the processor's seconds of training
and judging until each first holds a fully trained network of the target accuracy:

    nasfuse   the default search: hand-made networks first, short trainings, pauses, promotions
    at budget the same for networks of the whole budget only (--front-from), as those below do it
    random    random networks that use the whole budget, each trained fully
    tpe       plain Optuna TPE on the accuracy of full trainings, over the same networks
    asha      Ray Tune's ASHA on validation accuracy after each epoch, over the same networks

The target is the median over the seeds of the best accuracy that random search reaches after N full
trainings. All see validation accuracy only. A strategy that never reaches the target counts with
what it has spent, and with no more than random search may spend, N full trainings, which favours
it; such runs are marked. Ratios are geometric means over seeds, with bootstrap intervals over the
seeds of both. The three others are favoured in one more way: they need not find cheap networks, as
the default search does for its front. `at budget` need not either.

What has run is kept in the folder, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from nasfuse.api import search
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure
from nasfuse.data.load import load_dataset
from nasfuse.errors import BudgetError
from nasfuse.holes import Trial
from nasfuse.network import build
from nasfuse.planning import SearchOptions
from nasfuse.recipe import Recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.space import RandomTrial, SearchSpace, load_space
from nasfuse.training import NonFiniteError, Training, evaluate, recalibrate, reserve_memory

RESAMPLES = 10_000


@dataclass(frozen=True)
class Setting:
    """What all strategies share. `trainings` is the number of full ones that random search has."""

    budget: int
    data: str
    space: str
    epochs: int
    trainings: int
    workers: int

    @property
    def recipe(self) -> Recipe:
        return Recipe().with_epochs(self.epochs)


class Trainer:
    """Full trainings, epoch by epoch, in one process with one thread."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(1)
        reserve_memory()
        self.setting = setting
        self.dataset = load_dataset(setting.data, side=64, seed=0)
        self.normalisation = measure(self.dataset.train)

    def images(self, split: Any, architecture: Architecture) -> Images:
        side, device = architecture.resolution, torch.device("cpu")
        return Images.of(split, self.normalisation, resolution=side, device=device)

    def epochs(self, document: str, seed: int, *, each: bool) -> Iterator[tuple[float, float]]:
        """Validation accuracy and CPU-seconds so far, after each epoch or at the end."""
        began = time.process_time()
        architecture = parse_architecture(json.loads(document), where="the benchmark")
        seed = (seed + int(architecture.key, 16)) % 2**31
        torch.manual_seed(seed)
        images = self.images(self.dataset.train, architecture)
        validation = self.images(self.dataset.validation, architecture)
        recipe, network = self.setting.recipe, build(architecture)
        training = Training(network, images, recipe, epochs=self.setting.epochs, seed=seed)
        while training.done < training.steps:
            training.epoch()
            ended = training.done == training.steps
            if ended:
                recalibrate(network, images)
            if each or ended:
                accuracy = evaluate(network, validation).accuracy
                yield accuracy, time.process_time() - began


_trainers: dict[int, Trainer] = {}  # of a worker process


def _begin(setting: Setting) -> None:
    _trainers[0] = Trainer(setting)


def _train(document: str, seed: int) -> tuple[float, float]:
    try:
        *_, last = _trainers[0].epochs(document, seed, each=False)
    except NonFiniteError:
        return 0.0, 0.0
    return last


def network(space: SearchSpace, trial: Trial, budget: int) -> Architecture | None:
    """The network that a trial asks for, at the whole budget."""
    candidate = space.suggest(trial)
    try:
        return fit_to_budget(candidate.architecture, candidate.scaling, budget)
    except BudgetError:
        return None


def load(setting: Setting) -> SearchSpace:
    dataset = load_dataset(setting.data, side=64, seed=0)
    space = load_space(setting.space)
    return space.for_images(channels=dataset.channels, classes=len(dataset.classes))


Curve = list[tuple[float, float]]  # CPU-seconds so far, accuracy of a full training that ended


def run_full(setting: Setting, sampler: optuna.samplers.BaseSampler, seed: int) -> Curve:
    """Full trainings of what the sampler proposes; what does not fit or came before is free."""
    space, seen = load(setting), set()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    running: dict[Future[tuple[float, float]], optuna.Trial] = {}
    curve, spent, begun = [], 0.0, 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(setting.workers, context, _begin, (setting,)) as pool:
        while begun < setting.trainings or running:
            while begun < setting.trainings and len(running) < setting.workers:
                trial = study.ask()
                chosen = network(space, trial, setting.budget)
                if chosen is None or chosen.key in seen:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                seen.add(chosen.key)
                running[pool.submit(_train, chosen.to_json(), seed)] = trial
                begun += 1
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                accuracy, seconds = future.result()
                study.tell(running.pop(future), accuracy)
                spent += seconds
                curve.append((spent, accuracy))
    return curve


def run_random(setting: Setting, seed: int) -> Curve:
    return run_full(setting, optuna.samplers.RandomSampler(seed), seed)


def run_tpe(setting: Setting, seed: int) -> Curve:
    sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    return run_full(setting, sampler, seed)


def run_asha(setting: Setting, seed: int) -> Curve:
    """Ray Tune's scheduler with its settings left alone but for the number of epochs."""
    from ray import cloudpickle, init, shutdown, tune
    from ray.tune.schedulers import ASHAScheduler

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a script
    space, number = load(setting), 0
    documents: list[str] = []
    while len(documents) < 2 * setting.trainings:  # about what random search may spend
        chosen = network(space, RandomTrial(1_000_000 * (seed + 1) + number), setting.budget)
        number += 1
        if chosen is not None:
            documents.append(chosen.to_json())

    class Epochs(tune.Trainable):  # type: ignore[misc]
        trainers: dict[int, Trainer] = {}  # noqa: RUF012  # data are loaded once a process

        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            trainer = self.trainers.setdefault(0, Trainer(setting))
            self.left = trainer.epochs(new_config["document"], seed, each=True)
            return True

        def step(self) -> dict[str, Any]:
            accuracy, cpu = next(self.left)
            return {"accuracy": accuracy, "cpu": cpu}

    with tempfile.TemporaryDirectory() as folder:
        init("local", num_cpus=setting.workers, include_dashboard=False, log_to_driver=False)
        tuner = tune.Tuner(
            tune.with_resources(Epochs, {"cpu": 1}),
            param_space={"document": tune.grid_search(documents)},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                scheduler=ASHAScheduler(max_t=setting.epochs),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                stop={"training_iteration": setting.epochs},
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        frames = [result.metrics_dataframe for result in tuner.fit()]
        shutdown()
    return _asha_curve(frames, setting.epochs)


def _asha_curve(frames: Sequence[Any], epochs: int) -> Curve:
    """Every epoch's cost in the order in which they ended; only whole runs give an accuracy."""
    steps = []
    for frame in frames:
        before = 0.0
        for row in frame.sort_values("training_iteration").itertuples():
            whole = row.training_iteration == epochs
            steps.append((row.timestamp, row.cpu - before, row.accuracy if whole else 0.0))
            before = row.cpu
    curve, spent = [], 0.0
    for _, seconds, accuracy in sorted(steps):
        spent += seconds
        curve.append((spent, accuracy))
    return curve


def run_nasfuse(setting: Setting, seed: int, front_from: str | None = None) -> Curve:
    with tempfile.TemporaryDirectory() as folder:
        options = SearchOptions(
            budget=f"{setting.budget / 1e6:g}MFLOPs",
            data=setting.data,
            space=setting.space,
            epochs=setting.epochs,
            trials=4 * setting.trainings,
            workers=setting.workers,
            seed=seed,
            front_from=front_from,
            studies=Path(folder),
        )
        results = search(options).progress.results
    curve, spent = [], 0.0
    for result in results:
        spent += result.cpu_seconds or 0.0
        full = result.rung == setting.recipe.top and result.status == "complete"
        curve.append((spent, result.point.accuracy if full else 0.0))
    return curve


def run_at_budget(setting: Setting, seed: int) -> Curve:
    return run_nasfuse(setting, seed, f"{setting.budget / 1e6:g}MFLOPs")


STRATEGIES: dict[str, Callable[[Setting, int], Curve]] = {
    "nasfuse": run_nasfuse,
    "at budget": run_at_budget,
    "random": run_random,
    "tpe": run_tpe,
    "asha": run_asha,
}


def curves(setting: Setting, seeds: int, folder: Path) -> dict[str, list[Curve]]:
    """Of every strategy and seed; those of earlier calls are taken from the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Curve]] = {name: [] for name in STRATEGIES}
    for seed in range(seeds):
        for name, run in STRATEGIES.items():
            path = folder / f"{name}-{seed}.json"
            if not path.exists():
                # in a process of its own: Ray reads settings of ours from the environment
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    curve = pool.submit(run, setting, seed).result()
                path.write_text(json.dumps(curve))
                print(f"{name}, seed {seed}: {_text(curve)}", file=sys.stderr, flush=True)
            found[name].append([(s, a) for s, a in json.loads(path.read_text())])
    return found


def _text(curve: Curve) -> str:
    return f"best {max(a for _, a in curve):.4f} after {curve[-1][0]:.0f} CPU-seconds"


def time_to(target: float, curve: Curve, limit: float) -> tuple[float, bool]:
    """CPU-seconds to the target and whether it was reached; what was spent where it was not."""
    for seconds, accuracy in curve:
        if accuracy >= target:
            return seconds, True
    return min(limit, curve[-1][0]), False


def compare(found: dict[str, list[Curve]]) -> dict[str, Any]:
    """The target and a row a strategy, with ratios to the default search."""
    bests = [max(a for _, a in curve) for curve in found["random"]]
    target = statistics.median(bests)
    limit = statistics.fmean(curve[-1][0] for curve in found["random"])
    times = {n: [time_to(target, curve, limit) for curve in c] for n, c in found.items()}
    logs = {name: np.log([seconds for seconds, _ in pairs]) for name, pairs in times.items()}
    rows = []
    for name, pairs in times.items():
        rows.append(
            {
                "strategy": name,
                "CPU-seconds": [round(seconds, 1) for seconds, _ in pairs],
                "reached": sum(reached for _, reached in pairs),
                "best": [round(max(a for _, a in curve), 4) for curve in found[name]],
                "ratio": _ratio(logs[name], logs["nasfuse"]),
                "ratio at budget": _ratio(logs[name], logs["at budget"]),
            }
        )
    return {"target": target, "limit": round(limit, 1), "rows": rows}


def _ratio(logs: Any, ours: Any) -> list[float]:
    """How many times our seconds another strategy takes, and a 95 % interval."""
    generator = np.random.default_rng(0)
    draws = [
        generator.choice(logs, len(logs)).mean() - generator.choice(ours, len(ours)).mean()
        for _ in range(RESAMPLES)
    ]
    values = [logs.mean() - ours.mean(), *np.percentile(draws, [2.5, 97.5])]
    return [round(math.exp(value), 2) for value in values]


def _interval(ratio: Sequence[float]) -> str:
    middle, low, high = ratio
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="1MFLOPs")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--space", default="default")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    setting = Setting(
        parse_budget(options.budget),
        options.data,
        options.space,
        options.epochs,
        options.trainings,
        options.workers,
    )
    found = compare(curves(setting, options.seeds, options.out))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    about = {"machine": f"{platform.machine()}, {versions}", "seeds": options.seeds}
    if options.json:
        print(json.dumps({**about, **setting.__dict__, **found}))
        return
    print(", ".join(f"{name} {value}" for name, value in {**about, **setting.__dict__}.items()))
    print(f"target {found['target']:.4f}, the median best of random search")
    titles = f"{'times nasfuse':>20} {'times at budget':>20}"
    print(f"{'strategy':<9} {'reached':>7} {titles}  CPU-seconds to it, best accuracy")
    for row in found["rows"]:
        ratios = " ".join(f"{_interval(row[name]):>20}" for name in ("ratio", "ratio at budget"))
        seconds = " ".join(f"{s:.0f}" for s in row["CPU-seconds"])
        reached = f"{row['reached']} of {options.seeds}"
        print(f"{row['strategy']:<9} {reached:>7} {ratios}  {seconds}; {row['best']}")


if __name__ == "__main__":
    main()
