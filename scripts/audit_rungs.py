"""Do short trainings rank networks as full ones do? At one cost, where it is hardest.

    python scripts/audit_rungs.py --out audit.jsonl [--data fashion-mnist] [--target 2M]
        [--networks 24] [--first 0] [--seeds 2] [--epochs 2] [--workers 2] [--json]

Samples networks of the space that cost within 5 % of the target, each with one fusion at all its
skips and every fusion in turn. Each is trained on the first rung and in full, with every seed; the
full run is judged on its way as the search judges it (averaged weights, statistics of batch norm
measured anew) and as it is commonly judged (the weights as they are). Prints how each of these
ranks the networks in comparison with the accuracy at the end of the full training, the mean over
its seeds: Spearman's and Kendall's coefficients with bootstrap intervals over the networks, and the
share of a full training's CPU-seconds that it costs. "Promise" is what the search goes by: the
calibrated loss with what a short run hides of high resolutions. "Seeds" is Spearman's coefficient
between two seeds: where it is high, noise is not what is lacking. The first rung is judged with the
help of the search's surrogate as well, fitted to one seed's scores there and nothing else. What has
been trained is kept in the file, so the script can be stopped and started again. Accuracies are on
validation images.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import kendalltau, spearmanr
from smoothing import rows, smoothed

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure, subset
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import load_dataset
from nasfuse.errors import BudgetError
from nasfuse.holes import Choices, Value
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.promise import expected, halvings
from nasfuse.space import RandomTrial, SearchSpace, load_space
from nasfuse.training import Score, Training, evaluate, recalibrate, reserve_memory

PAUSES = (0.1, 0.175, 0.25, 0.5)  # of the full training
WITHIN = 0.05
RESAMPLES, FEW = 2000, 200  # of networks, for an interval; few where there are many intervals


class OneFusion(RandomTrial):
    """A random member of a space with the same fusion at every skip."""

    def __init__(self, seed: int, fusion: str) -> None:
        super().__init__(seed)
        self.fusion = fusion

    def suggest_categorical(self, name: str, choices: Choices) -> Value:
        at_skip = name.split(".")[-2:-1] == ["fusion"] or name.endswith(".fusion")
        return self.fusion if at_skip else super().suggest_categorical(name, choices)


class Sample(NamedTuple):
    """One network of the audit, to be trained with one seed."""

    fusion: str
    architecture: Architecture
    seed: int


def networks(
    space: SearchSpace, target: int, count: int, seed: int
) -> Iterator[tuple[str, Architecture]]:
    """Networks within 5 % of the target, every fusion in turn; the same at every call."""
    seen: set[str] = set()
    while len(seen) < count:
        fusion = space.fusions[len(seen) % len(space.fusions)]
        seed += 1
        candidate = space.suggest(OneFusion(seed, fusion))
        try:  # the fit keeps thop's larger count within what it is given
            fitted = fit_to_budget(candidate.architecture, candidate.scaling, int(1.05 * target))
        except BudgetError:
            continue
        if abs(cost(fitted).macs / target - 1) <= WITHIN and fitted.key not in seen:
            seen.add(fitted.key)
            yield fusion, fitted


class Trainer:
    """Trains samples on one data set, with one recipe, by one thread."""

    def __init__(self, data: str, recipe: Recipe) -> None:
        self.dataset: Dataset = load_dataset(data, side=64, seed=0)
        self.normalisation, self.recipe = measure(self.dataset.train), recipe

    def __call__(self, sample: Sample) -> dict[str, Any]:
        price = cost(sample.architecture)
        return {
            "key": sample.architecture.key,
            "fusion": sample.fusion,
            "seed": sample.seed,
            "macs": price.macs,
            "architecture": sample.architecture.to_json(),
            "scores": {**self.first_rung(sample), **self.full(sample)},
        }

    def run(self, sample: Sample, rung: int) -> Training:
        """Seeded by the network and the sample, so that other networks draw other weights."""
        seed = (1_000_003 * sample.seed + int(sample.architecture.key, 16)) % 2**31
        torch.manual_seed(seed)
        settings = self.recipe.rungs[rung]
        train = subset(self.dataset.train, settings.share, 0)
        images = self.images(train, sample)
        network = build(sample.architecture)
        recipe = self.recipe.at(rung)
        return Training(network, images, recipe, epochs=settings.epochs, seed=seed)

    def images(self, split: Any, sample: Sample) -> Images:
        side, device = sample.architecture.resolution, torch.device("cpu")
        return Images.of(split, self.normalisation, resolution=side, device=device)

    def score(self, training: Training, sample: Sample) -> Score:
        return evaluate(training.network, self.images(self.dataset.validation, sample))

    def first_rung(self, sample: Sample) -> dict[str, Any]:
        began = time.process_time()
        training = self.run(sample, 0)
        while training.done < training.steps:
            training.epoch()
        recalibrate(training.network, training.images)
        score = self.score(training, sample)
        return {"rung 0": _scores(training, score, time.process_time() - began)}

    def full(self, sample: Sample) -> dict[str, Any]:
        """The full run; the seconds of judging it in the common way count for nothing."""
        scores: dict[str, Any] = {}
        began, free = time.process_time(), 0.0
        training = self.run(sample, self.recipe.top)
        training.keep_average()
        for pause in PAUSES:
            until = round(pause * training.steps)
            while training.done < until:
                training.advance(until)
            paused = time.process_time()
            raw = self.score(training, sample).accuracy
            free += time.process_time() - paused
            with training.averaged():
                recalibrate(training.network, training.images)
                score = self.score(training, sample)
            seconds = time.process_time() - began - free
            scores[_stage(pause)] = _scores(training, score, seconds) | {"raw": raw}
        while training.done < training.steps:
            training.epoch()
        recalibrate(training.network, training.images)
        score = self.score(training, sample)
        scores["end"] = _scores(training, score, time.process_time() - began - free)
        return scores


def _stage(pause: float) -> str:
    return f"{pause:.1%} of the run"


def _scores(training: Training, score: Score, seconds: float) -> dict[str, float]:
    return {
        "accuracy": score.accuracy,
        "calibrated loss": score.calibrated_loss,
        "training loss": training.loss,
        "seconds": seconds,
    }


_trainers: dict[int, Trainer] = {}  # of a worker process


def _begin(data: str, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    reserve_memory()
    _trainers[0] = Trainer(data, recipe)


def _train(fusion: str, document: str, seed: int) -> dict[str, Any]:
    architecture = parse_architecture(json.loads(document), where="the audit")
    return _trainers[0](Sample(fusion, architecture, seed))


def train_all(options: argparse.Namespace, recipe: Recipe) -> list[dict[str, Any]]:
    """A record a network and seed; those of earlier calls are taken from the file."""
    space = load_space(options.space)
    dataset = load_dataset(options.data, side=64, seed=0)
    space = space.for_images(channels=dataset.channels, classes=len(dataset.classes))
    found = list(networks(space, parse_budget(options.target), options.networks, options.first))
    path = Path(options.out)
    lines = path.read_text().splitlines() if path.exists() else []
    trained = recipe.model_dump(mode="json")  # other recipes' records are not for this table
    kept = [
        r
        for r in map(json.loads, lines)
        if (r.get("data"), r.get("recipe")) == (options.data, trained)
    ]
    records = {(r["key"], r["seed"]): r for r in kept}
    left = [
        (fusion, architecture.to_json(), seed)
        for seed in range(options.seeds)
        for fusion, architecture in found
        if (architecture.key, seed) not in records
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _begin, (options.data, recipe)) as pool, path.open("a") as f:
        for record in pool.imap_unordered(_star, left):
            records[record["key"], record["seed"]] = record
            f.write(json.dumps(record | {"data": options.data, "recipe": trained}) + "\n")
            f.flush()
            print(f"{len(records)} of {len(found) * options.seeds}", file=sys.stderr, flush=True)
    keys = {architecture.key for _, architecture in found}
    return [r for (key, seed), r in records.items() if key in keys and seed < options.seeds]


def _star(arguments: tuple[str, str, int]) -> dict[str, Any]:
    return _train(*arguments)


Scores = NDArray[np.float64]  # (seeds, networks), higher is better


def table(records: Sequence[dict[str, Any]], stage: str, score: str = "accuracy") -> Scores:
    """One score of all networks, which are in the order of their first records."""
    keys = dict.fromkeys(r["key"] for r in records)
    seeds = sorted({r["seed"] for r in records})
    by = {(r["key"], r["seed"]): r["scores"] for r in records}
    return np.array([[by[key, seed][stage][score] for key in keys] for seed in seeds])


def shortness(recipe: Recipe) -> dict[str, float]:
    """How often the full training is halved to each stage on the way to its end."""
    return {"rung 0": halvings(recipe, 0)} | {_stage(pause): -math.log2(pause) for pause in PAUSES}


def behind(records: Sequence[dict[str, Any]], recipe: Recipe) -> dict[str, float]:
    """What `BEHIND` of nasfuse/searching/promise.py would be by these networks alone, a stage each.

    Least squares of the log odds of being right at the end on those of the right class at the
    stage and on the doublings of the resolution: the second slope in units of the first, for each
    halving.
    """
    sides = {r["key"]: json.loads(r["architecture"])["resolution"] for r in records}
    doublings = np.log2(list(sides.values()))
    end, found = logit(table(records, "end").mean(0)), {}
    for stage, halved in shortness(recipe).items():
        start = logit(np.exp(-table(records, stage, "calibrated loss"))).mean(0)
        terms = np.column_stack([np.ones(len(start)), start, doublings])
        _, slope, lift = np.linalg.lstsq(terms, end, rcond=None)[0]
        found[stage] = round(float(lift / slope / halved), 3)
    return found


def predictors(
    records: Sequence[dict[str, Any]], recipe: Recipe
) -> tuple[dict[str, Scores], list[str]]:
    """Every way of judging a network, by name, and the fusions of the networks."""
    documents = {r["key"]: json.loads(r["architecture"]) for r in records}
    sides = [document["resolution"] for document in documents.values()]
    short = shortness(recipe)
    found: dict[str, Scores] = {}
    for stage, scores in records[0]["scores"].items():
        loss = table(records, stage, "calibrated loss")
        found[f"{stage}: accuracy"] = table(records, stage)
        found[f"{stage}: calibrated loss"] = -loss
        if stage != "end":
            lift = partial(expected, halved=short[stage])
            found[f"{stage}: promise"] = np.array(
                [[lift(one, side=s) for one, s in zip(row, sides, strict=True)] for row in loss]
            )
            found[f"{stage}: training loss"] = -table(records, stage, "training loss")
        if "raw" in scores:
            found[f"{stage}: accuracy as it is"] = table(records, stage, "raw")
        if stage == "rung 0":
            features = rows(documents)
            for name in ("accuracy", "promise"):
                scores = found[f"rung 0: {name}"]
                found[f"rung 0: {name}, smoothed"] = np.array(
                    [smoothed(values, features) for values in scores]
                )
    fusions = {r["key"]: r["fusion"] for r in records}
    return found, list(fusions.values())


Coefficient = Callable[[Any, Any], Any]


def correlation(scores: Scores, truth: Scores, coefficient: Coefficient) -> float:
    """Of each seed's scores with the truth, and the mean over the seeds."""
    return float(np.mean([coefficient(row, truth).statistic for row in scores]))


def with_interval(
    scores: Scores, truth: Scores, coefficient: Coefficient, *, resamples: int = RESAMPLES
) -> list[float]:
    """A coefficient, and the 95 % interval when the networks are drawn again."""
    generator, count = np.random.default_rng(0), len(truth)
    values = []
    for _ in range(resamples if coefficient is spearmanr else resamples // 4):
        chosen = generator.integers(0, count, count)
        if len(set(chosen)) > 2:
            values.append(correlation(scores[:, chosen], truth[chosen], coefficient))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return [round(v, 3) for v in (correlation(scores, truth, coefficient), low, high)]


def with_others(scores: Scores, ends: Scores) -> list[float] | None:
    """Spearman's coefficient of each seed's scores with the ends of the other seeds.

    A pause is a part of the run that ends, which flatters it; of another seed's it is not. None
    where there is one seed.
    """
    if len(ends) < 2:
        return None
    others = [np.delete(ends, seed, axis=0).mean(0) for seed in range(len(ends))]
    each = [
        with_interval(scores[[seed]], other, spearmanr, resamples=FEW)
        for seed, other in enumerate(others)
    ]
    return [round(float(value), 3) for value in np.mean(each, axis=0)]


def between(scores: Scores) -> float | None:
    """How alike two seeds rank the networks, the mean over all pairs; None where there is one."""
    pairs = [spearmanr(one, other).statistic for one, other in combinations(scores, 2)]
    return round(float(np.mean(pairs)), 3) if pairs else None


def report(records: Sequence[dict[str, Any]], recipe: Recipe) -> list[dict[str, Any]]:
    """A row a way of judging."""
    found, fusions = predictors(records, recipe)
    truth = found["end: accuracy"].mean(0)
    full = np.mean([r["scores"]["end"]["seconds"] for r in records])
    kinds = list(dict.fromkeys(fusions))
    rows = []
    for name, scores in found.items():
        seconds = np.mean([r["scores"][name.split(":")[0]]["seconds"] for r in records])
        within = {
            kind: {
                name: with_interval(scores[:, mask], truth[mask], coefficient, resamples=FEW)
                for name, coefficient in (("spearman", spearmanr), ("kendall", kendalltau))
            }
            for kind in kinds
            if (mask := np.array([f == kind for f in fusions])).sum() > 2
        }
        row = {
            "judged by": name,
            "share of cost": round(float(seconds / full), 4),
            "spearman": with_interval(scores, truth, spearmanr),
            "kendall": with_interval(scores, truth, kendalltau),
            "other seeds": with_others(scores, found["end: accuracy"]),
            "between seeds": between(scores),
            "within fusions": within,
        }
        rows.append(row)
    return rows


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was trained: spreads in points, over networks and over seeds."""
    end = 100 * table(records, "end")
    macs = [r["macs"] for r in records]
    spread = round(float(np.sqrt(end.var(0, ddof=1).mean())), 3) if len(end) > 1 else None
    return {
        "networks": end.shape[1],
        "seeds": end.shape[0],
        "MACs": [min(macs), max(macs)],
        "accuracy": [round(float(v), 2) for v in (end.mean(), end.min(), end.max())],
        "deviation over networks": round(float(end.mean(0).std(ddof=1)), 3),
        "deviation over seeds": spread,
        "CPU-seconds of a full training": round(
            float(np.mean([r["scores"]["end"]["seconds"] for r in records])), 1
        ),
    }


def _text(found: Sequence[float] | None) -> str:
    if found is None:
        return ""
    value, low, high = found
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line a way of judging, and below it one for each fusion with the networks that have it."""
    print(
        f"{'judged by':<34} {'cost':>6}  {'Spearman':<22} {'Kendall':<22} "
        f"{'Spearman, other seeds':<22} between seeds"
    )
    for row in rows:
        texts = [_text(row[name]) for name in ("spearman", "kendall", "other seeds")]
        share = f"{row['share of cost']:.1%}"
        seeds = "" if row["between seeds"] is None else f"{row['between seeds']:.2f}"
        print(f"{row['judged by']:<34} {share:>6}  {' '.join(f'{t:<22}' for t in texts)} {seeds}")
        for kind, found in row["within fusions"].items():
            both = [f"{_text(found[name]):<22}" for name in ("spearman", "kendall")]
            print(f"    {kind:<38} {' '.join(both)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--space", default="default")
    parser.add_argument("--target", default="2M")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="another number, other networks")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recipe = Recipe().with_epochs(options.epochs)
    records = train_all(options, recipe)
    rows, about = report(records, recipe), summary(records)
    about["BEHIND"] = behind(records, recipe)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    machine = f"{platform.machine()}, {versions}"
    if options.json:
        print(
            json.dumps({"machine": machine, "recipe": recipe.model_dump(), **about, "rows": rows})
        )
        return
    print(machine)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    show(rows)


if __name__ == "__main__":
    main()
