"""Accuracy per compute: what the recipe reaches on Fashion-MNIST after some CPU-seconds.

    python scripts/bench_recipe.py [--seconds 10,20,40,80] [--seeds 5] [--macs 3.5M]
        [--network plain] [--recipe FILE] [--data fashion-mnist] [--split test|validation]
        [--reach 93.5] [--json]

One network of the default space, scaled to so many MACs, and one thread: `plain` adds at every skip
and has one residual block a stage, of 16, 32 and 64 channels at its default size, for processors
take 16 numbers at a time and a network of 14 channels takes as long; or it is one of the hand-made
ones.
For each number of seconds a training of that length is planned from the measured speed, with its
own complete schedule, and run with every seed; the weights at its end are judged. Only `--split
test` reads the test images, at the end of each run, and nothing was chosen by them: settings and
networks were compared on `--split validation`. With `--reach` trainings become longer, by the
square root of two at a time, until the median has that percentage. Prints medians, and the
CPU-seconds that the trainings really took, with starting and judging.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nasfuse.architecture import Architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure, subset
from nasfuse.data.dataset import Dataset, Split
from nasfuse.data.load import load_dataset, load_test
from nasfuse.holes import Value
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.space import PatternTrial, SearchSpace, load_space
from nasfuse.training import Training, evaluate, recalibrate, reserve_memory

WARMUP, TIMED = 10, 40  # steps
PLAIN: dict[str, Value] = {
    "stem.width": 16,
    "stages.*.fusion.*": "add",
    "stages.*.depth": 1,
    "stages.0.width": 16,
    "stages.1.width": 32,
    "stages.2.width": 64,
    "head": "conv",
    "scaling.gamma": 1.0,  # 32 pixels at any size
}


class Bench:
    """One network on one data set, trained by one thread."""

    def __init__(
        self, found: Architecture, dataset: Dataset, recipe: Recipe, judges: Split
    ) -> None:
        self.found, self.dataset, self.recipe = found, dataset, recipe
        self.normalisation, self.judges = measure(dataset.train), judges

    def images(self, split: Split) -> Images:
        side, device = self.found.resolution, torch.device("cpu")
        return Images.of(split, self.normalisation, resolution=side, device=device)

    def training(self, images: Images, epochs: int, seed: int) -> Training:
        torch.manual_seed(seed)
        return Training(build(self.found), images, self.recipe, epochs=epochs, seed=seed)

    def speed(self) -> float:
        """Images per CPU-second."""
        training = self.training(self.images(self.dataset.train), 1, 0)
        training.advance(WARMUP)
        began = time.process_time()
        training.advance(WARMUP + TIMED)
        return TIMED * self.recipe.batch / (time.process_time() - began)

    def run(self, seconds: float, speed: float, seed: int) -> tuple[float, float]:
        """Accuracy, and CPU-seconds of training."""
        passes = seconds * speed / len(self.dataset.train)
        epochs = max(1, math.ceil(passes - 1e-9))
        images = self.images(subset(self.dataset.train, passes / epochs, seed))
        began = time.process_time()
        training = self.training(images, epochs, seed)
        while training.done < training.steps:
            training.epoch()
        recalibrate(training.network, images)
        spent = time.process_time() - began
        return evaluate(training.network, self.images(self.judges)).accuracy, spent


def fitted(space: SearchSpace, patterns: Mapping[str, Value], macs: int) -> Architecture:
    candidate = space.suggest(PatternTrial(patterns))
    return fit_to_budget(candidate.architecture, candidate.scaling, macs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", default="10,20,40,80")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--macs", default="3.5M")
    parser.add_argument("--network", default="plain", help="or a reference of the default space")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--reach", type=float, default=0.0, help="go on until this percentage")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reserve_memory()
    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    dataset = load_dataset(options.data, side=28, seed=0)
    space = load_space("default").for_images(
        channels=dataset.channels, classes=len(dataset.classes)
    )
    networks = {"plain": PLAIN, **space.references}
    if options.network not in networks:
        parser.error(f"the networks are {', '.join(networks)}")
    found = fitted(space, networks[options.network], parse_budget(options.macs))
    test = load_test(options.data, side=28) if options.split == "test" else None
    if options.split == "test" and test is None:
        parser.error(f"{options.data} has no test images: --split validation")
    bench = Bench(found, dataset, recipe, test or dataset.validation)
    rows: list[dict[str, Any]] = []
    lengths = [float(word) for word in options.seconds.split(",")]
    while lengths:
        seconds = lengths.pop(0)
        speed = bench.speed()  # machines change their speed
        runs = [bench.run(seconds, speed, seed) for seed in range(options.seeds)]
        accuracies = sorted(accuracy for accuracy, _ in runs)
        rows.append(
            {
                "seconds": seconds,
                "spent": round(statistics.median(spent for _, spent in runs), 1),
                "passes": round(seconds * speed / len(dataset.train), 2),
                "median": round(statistics.median(accuracies), 4),
                "accuracies": accuracies,
            }
        )
        if not lengths and 100 * rows[-1]["median"] < options.reach:
            lengths.append(round(math.sqrt(2) * seconds, 1))
        if not options.json:
            row, ends = rows[-1], f"{accuracies[0]:.2%} to {accuracies[-1]:.2%}"
            print(
                f"{seconds:5g} s ({row['spent']:g} s spent, {row['passes']:g} passes): median "
                f"{row['median']:.2%}, {ends} on {options.split} images, {options.seeds} seeds",
                flush=True,
            )
    if options.json:
        machine = {"processor": platform.processor(), "torch": torch.__version__}
        about = {"machine": machine, "macs": cost(found).macs, "recipe": recipe.model_dump()}
        print(json.dumps({**about, "split": options.split, "rows": rows}))


if __name__ == "__main__":
    main()
