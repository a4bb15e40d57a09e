"""How much compute does it take to find a network as good as random search does?

    python scripts/bench_strategies.py --out FOLDER [--budget 1MFLOPs] [--data sample]
        [--judge fashion-mnist] [--epochs 4] [--trainings 40] [--seeds 2] [--only NAME[,NAME]]
        [--workers 2] [--json]

Runs strategies on one space, with one trainer, and counts the processor's seconds of training and
judging until each holds a fully trained network of the target accuracy:

    nasfuse   the default search: hand-made networks first, short trainings, pauses, promotions
    at budget the same for networks of the whole budget only (--front-from), as those below do it
    random    random networks that use the whole budget, each trained fully
    tpe       plain Optuna TPE on the accuracy of full trainings, over the same networks
    asha      Ray Tune's ASHA on validation accuracy after each epoch, over the same networks

All see validation images only, and hold the network that was best on those. How good that is, the
test images of `--judge` say, in seconds that are not counted. The target is what random search
holds after N full trainings, the mean over many orders of all the networks that it trained with any
seed; the other strategies reach it when their mean over the seeds does (scripts/reaching.py). Who
does not reach it counts with the seconds that random search needs, which favours it; such
rows are marked. The three others are favoured in one more way: they need not find cheap networks,
as the default search does for its front. `at budget` need not either.

What has run is kept in the folder, so the script can be stopped and started again; the table is of
all that is there, whatever `--only` and `--seeds` say of what is to run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from reaching import Run, Trained, compare
from torch import nn

from nasfuse.api import search
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure
from nasfuse.data.load import load_dataset, load_test
from nasfuse.errors import BudgetError
from nasfuse.holes import Trial
from nasfuse.kept_weights import load_weights
from nasfuse.network import build
from nasfuse.planning import SearchOptions
from nasfuse.recipe import Recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.space import RandomTrial, SearchSpace, load_space
from nasfuse.training import NonFiniteError, Training, evaluate, recalibrate, reserve_memory

TRIALS = 2  # networks that a search of ours tries for each full training of random search


@dataclass(frozen=True)
class Setting:
    """What all strategies share. `trainings` is the number of full ones that random search has."""

    budget: int
    data: str
    judge: str
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
        self.judges = load_test(setting.judge, side=64)
        self.normalisation = measure(self.dataset.train)

    def images(self, split: Any, architecture: Architecture) -> Images:
        side, device = architecture.resolution, torch.device("cpu")
        return Images.of(split, self.normalisation, resolution=side, device=device)

    def epochs(self, document: str, seed: int, *, each: bool) -> Iterator[Trained]:
        """Where the training stands after each epoch or at its end, when it is judged as well."""
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
                spent = time.process_time() - began
                yield Trained(spent, accuracy, self.judged(network, architecture) if ended else 0.0)

    def judged(self, network: nn.Module, architecture: Architecture) -> float:
        """Accuracy on images that no search sees."""
        assert self.judges is not None  # main has looked
        return evaluate(network, self.images(self.judges, architecture)).accuracy


_trainers: dict[int, Trainer] = {}  # of a worker process


def _begin(setting: Setting) -> None:
    _trainers[0] = Trainer(setting)


def _train(document: str, seed: int) -> Trained:
    try:
        *_, last = _trainers[0].epochs(document, seed, each=False)
    except NonFiniteError:
        return Trained(0.0, 0.0, 0.0)
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


def run_full(setting: Setting, sampler: optuna.samplers.BaseSampler, seed: int) -> Run:
    """Full trainings of what the sampler proposes; what does not fit or came before is free."""
    space, seen = load(setting), set()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    running: dict[Future[Trained], optuna.Trial] = {}
    run, spent, begun = [], 0.0, 0
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
                trained = future.result()
                study.tell(running.pop(future), trained.validation)
                spent += trained.spent
                run.append(trained._replace(spent=spent))
    return run


def run_random(setting: Setting, seed: int) -> Run:
    return run_full(setting, optuna.samplers.RandomSampler(seed), seed)


def run_tpe(setting: Setting, seed: int) -> Run:
    sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    return run_full(setting, sampler, seed)


def run_asha(setting: Setting, seed: int) -> Run:
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
            stands = next(self.left)
            return {"accuracy": stands.validation, "cpu": stands.spent, "judged": stands.judged}

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
    return _asha_run(frames, setting.epochs)


def _asha_run(frames: Sequence[Any], epochs: int) -> Run:
    """Every epoch's cost in the order in which they ended; only whole trainings count as such."""
    steps = []
    for frame in frames:
        before = 0.0
        for row in frame.sort_values("training_iteration").itertuples():
            whole = row.training_iteration == epochs
            steps.append((row.timestamp, row.cpu - before, whole, row.accuracy, row.judged))
            before = row.cpu
    run, spent = [], 0.0
    for _, seconds, whole, accuracy, judged in sorted(steps):
        spent += seconds
        if whole:
            run.append(Trained(spent, accuracy, judged))
    return run


def run_nasfuse(setting: Setting, seed: int, front_from: str | None = None) -> Run:
    """The whole search with its defaults; the finalists' further trainings cost and add nothing."""
    trainer = Trainer(setting)
    with tempfile.TemporaryDirectory() as folder:
        options = SearchOptions(
            budget=f"{setting.budget / 1e6:g}MFLOPs",
            data=setting.data,
            space=setting.space,
            epochs=setting.epochs,
            trials=TRIALS * setting.trainings,
            workers=setting.workers,
            seed=seed,
            front_from=front_from,
            studies=Path(folder),
        )
        outcome = search(options)
        run, spent = [], 0.0
        for result in outcome.progress.results:
            spent += result.cpu_seconds or 0.0
            full = result.rung == setting.recipe.top and result.status == "complete"
            if full and not result.repeat:
                network = build(result.architecture)
                weights = outcome.study.trial(result.key) / f"{result.step.stem}.safetensors"
                load_weights(network, weights)
                judged = trainer.judged(network, result.architecture)
                run.append(Trained(spent, result.point.accuracy, judged))
    return run


def run_at_budget(setting: Setting, seed: int) -> Run:
    return run_nasfuse(setting, seed, f"{setting.budget / 1e6:g}MFLOPs")


OURS = ("nasfuse", "at budget")
STRATEGIES: dict[str, Callable[[Setting, int], Run]] = {
    "nasfuse": run_nasfuse,
    "at budget": run_at_budget,
    "random": run_random,
    "tpe": run_tpe,
    "asha": run_asha,
}


def run_all(setting: Setting, names: Sequence[str], seeds: int, folder: Path) -> dict[str, Any]:
    """The runs of every strategy that the folder holds, those named for these seeds among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in itertools.product(range(seeds), names):
        path = folder / f"{name}-{seed}.json"
        if not path.exists():
            # in a process of its own: Ray reads settings of ours from the environment
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                run = pool.submit(STRATEGIES[name], setting, seed).result()
            path.write_text(json.dumps(run))
            print(f"{name}, seed {seed}: {_text(run)}", file=sys.stderr, flush=True)
    kept = {name: sorted(folder.glob(f"{name}-*.json")) for name in STRATEGIES}
    return {name: [_read(path) for path in paths] for name, paths in kept.items() if paths}


def _read(path: Path) -> Run:
    return [Trained(*each) for each in json.loads(path.read_text())]


def _text(run: Run) -> str:
    best = max(run, key=lambda trained: trained.validation)
    return (
        f"{len(run)} full trainings in {run[-1].spent:.0f} CPU-seconds, the best on validation "
        f"images {best.validation:.4f} there, {best.judged:.4f} on others"
    )


def _interval(ratio: Sequence[float]) -> str:
    middle, low, high = ratio
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def show(found: dict[str, Any]) -> None:
    print(
        f"target {found['target']:.4f}, what random search holds after {found['seconds']:.0f} "
        "CPU-seconds of full trainings; random networks have {:.4f}, deviation {:.4f}".format(
            *found["random networks"]
        )
    )
    ours = list(found["rows"][0]["times"])
    titles = " ".join(f"{f'times {name}':>22}" for name in ours)
    columns = f"{'CPU-seconds':>12} {'at the end':>11} {'the first':>15}"
    print(f"{'strategy':<9} runs full {columns} {titles}")
    for row in found["rows"]:
        seconds = f"{'' if row['reached'] else '> '}{row['CPU-seconds']:.0f}"
        times = " ".join(f"{_interval(row['times'][name]):>22}" for name in ours)
        counts = f"{row['strategy']:<9} {row['runs']:>4} {row['trainings']:>4.0f}"
        first = "{:.0f} s {:.4f}".format(*row["first"])
        print(f"{counts} {seconds:>12} {row['at the end']:>11.4f} {first:>15} {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="1MFLOPs")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--judge", help="test images of these data; those of --data by default")
    parser.add_argument("--space", default="default")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trainings", type=int, default=40, help="N, of random search and TPE")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default=",".join(STRATEGIES), help="what is to run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    judge = options.judge or options.data
    if load_test(judge, side=64) is None:
        parser.error(f"{judge} has no test images to judge by")
    setting = Setting(
        parse_budget(options.budget),
        options.data,
        judge,
        options.space,
        options.epochs,
        options.trainings,
        options.workers,
    )
    runs = run_all(setting, options.only.split(","), options.seeds, options.out)
    if "random" not in runs or not runs.keys() & set(OURS):
        parser.error("there is nothing to compare: neither 'random' nor one of ours has run")
    found = compare(runs, setting.trainings, [name for name in OURS if name in runs])
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    about = {"machine": f"{platform.machine()}, {versions}"}
    if options.json:
        print(json.dumps({**about, **setting.__dict__, **found}))
        return
    print(", ".join(f"{name} {value}" for name, value in {**about, **setting.__dict__}.items()))
    show(found)


if __name__ == "__main__":
    main()
