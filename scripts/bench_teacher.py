"""Does a teacher help at equal cost? Distillation (Hinton et al. 2015, arXiv:1503.02531), measured.

    python scripts/bench_teacher.py [--data sample] [--student 1M] [--teacher 3M] [--epochs 6]
        [--seeds 3] [--weight 0.5] [--temperature 2] [--json]

One family of networks, one thread: a student, and a teacher that is already trained, which costs
nothing here. The student learns from labels alone; or from labels and from what the teacher says
about every batch (`at each step`) or has said once about every image (`asked once`). The loss
is (1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher, student) of softened outputs.
Speeds are measured first, turn by turn, and every way gets the epochs that fit into the CPU-seconds
of the student alone, with its own complete schedule; what the teacher computes is counted.
Accuracies are on validation images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from bench_training import architecture
from torch import Tensor, nn
from torch.nn import functional

from nasfuse.architecture import Architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, measure
from nasfuse.data.load import load_dataset
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.training import (
    Training,
    answers,
    autocast,
    evaluate,
    recalibrate,
    reserve_memory,
    soft_labels,
)

WAYS = ("labels alone", "at each step", "asked once")
WARMUP, TIMED = 5, 25  # steps


class Taught(Training):
    """A training whose labels are the numbers of its images, and whose loss hears a teacher."""

    truth: Tensor
    said: Tensor | None  # by the teacher, of all images
    teacher: nn.Module
    side: int
    weight: float
    temperature: float

    def _compute(self, x: Tensor, y: Tensor) -> Tensor:
        """As in the training that it stands for, but for the loss."""
        soft = self.said[y] if self.said is not None else self._ask(x)
        with autocast(self.device):
            outputs = self.network(x)
        own, hot = outputs.float(), self.temperature
        wanted = soft_labels(self.truth[y], own.shape[1], self.recipe.label_smoothing)
        hard = functional.cross_entropy(own, wanted)
        heard = functional.kl_div(
            (own / hot).log_softmax(1),
            (soft / hot).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        loss = (1 - self.weight) * hard + self.weight * hot**2 * heard
        return self._learn(loss)

    @torch.no_grad()
    def _ask(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.side:
            size = (self.side, self.side)
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        with autocast(self.device):
            heard: Tensor = self.teacher(x)
        return heard.float()


class Bench:
    """A student, a teacher and their images."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.recipe = options, Recipe()
        self.dataset = load_dataset(options.data, side=64, seed=0)
        self.normalisation = measure(self.dataset.train)
        self.student, self.big = (
            architecture(
                "residual",
                parse_budget(text),
                side=self.dataset.train.images.shape[-1],
                channels=self.dataset.channels,
            )
            for text in (options.student, options.teacher)
        )
        training = self.begin("labels alone", self.big, epochs=options.epochs, seed=99)
        self.finish(training)
        self.teacher = training.network.eval()
        self.best = self.accuracy(self.big, self.teacher)

    def images(self, split: Any, network: Architecture) -> Images:
        device = torch.device("cpu")
        return Images.of(split, self.normalisation, resolution=network.resolution, device=device)

    def begin(self, way: str, network: Architecture, *, epochs: int, seed: int) -> Training:
        torch.manual_seed(seed)
        images, built = self.images(self.dataset.train, network), build(network)
        if way == WAYS[0]:
            return Training(built, images, self.recipe, epochs=epochs, seed=seed)
        numbered = replace(images, labels=torch.arange(len(images)))
        training = Taught(built, numbered, self.recipe, epochs=epochs, seed=seed)
        training.truth, training.teacher, training.side = (
            images.labels,
            self.teacher,
            self.big.resolution,
        )
        training.weight, training.temperature = self.options.weight, self.options.temperature
        training.said = self.said() if way == WAYS[2] else None
        return training

    def said(self) -> Tensor:
        """What the teacher says of every training image, without augmentation."""
        images = self.images(self.dataset.train, self.big)
        return torch.cat([outputs for outputs, _ in answers(self.teacher, images)]).clone()

    def finish(self, training: Training) -> None:
        while training.done < training.steps:
            training.epoch()
        recalibrate(training.network, training.images)

    def accuracy(self, architecture: Architecture, network: nn.Module) -> float:
        return evaluate(network, self.images(self.dataset.validation, architecture)).accuracy

    def speeds(self) -> dict[str, tuple[float, float]]:
        """Of each way, CPU-seconds to begin with and of an epoch."""
        began = time.process_time()
        self.said()
        once = time.process_time() - began
        trainings = {way: self.begin(way, self.student, epochs=1, seed=0) for way in WAYS}
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(WARMUP + TIMED):
            for way, training in trainings.items():
                began = time.process_time()
                training.advance(training.done + 1)
                if turn >= WARMUP:
                    times[way].append(time.process_time() - began)
        steps = trainings[WAYS[0]].per_epoch
        first = {way: once if way == WAYS[2] else 0.0 for way in WAYS}
        return {way: (first[way], steps * statistics.median(times[way])) for way in WAYS}

    def run(self, way: str, epochs: int, seed: int) -> dict[str, Any]:
        began = time.process_time()
        training = self.begin(way, self.student, epochs=epochs, seed=seed)
        self.finish(training)
        seconds = time.process_time() - began
        accuracy = self.accuracy(self.student, training.network)
        run = {"way": way, "epochs": epochs, "seed": seed, "accuracy": accuracy, "seconds": seconds}
        print(json.dumps(run), file=sys.stderr, flush=True)
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sample")
    parser.add_argument("--student", default="1M")
    parser.add_argument("--teacher", default="3M")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reserve_memory()
    bench = Bench(options)
    print(
        f"student {cost(bench.student).macs:,} MACs, teacher {cost(bench.big).macs:,} MACs "
        f"knows {bench.best:.2%}",
        file=sys.stderr,
        flush=True,
    )
    speeds = bench.speeds()
    budget = options.epochs * speeds[WAYS[0]][1]
    fitting = {w: max(1, int((budget - first) / each)) for w, (first, each) in speeds.items()}
    fitting[WAYS[0]] = options.epochs
    runs = [bench.run(way, fitting[way], seed) for seed in range(options.seeds) for way in WAYS]
    if options.json:
        print(json.dumps({"teacher": bench.best, "speeds": speeds, "fits": fitting, "runs": runs}))
        return
    print("               epochs  accuracy  deviation  CPU-seconds")
    for way in WAYS:
        mine = [run for run in runs if run["way"] == way]
        found = [run["accuracy"] for run in mine]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        seconds = statistics.fmean(run["seconds"] for run in mine)
        print(
            f"{way:<14} {fitting[way]:>6}  {statistics.fmean(found):>8.4f}"
            f"  {spread:>9.4f}  {seconds:>11.1f}"
        )


if __name__ == "__main__":
    main()
