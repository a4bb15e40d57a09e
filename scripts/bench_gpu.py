"""Training on a GPU: speed, several trials at once, and accuracy after a few epochs.

    python scripts/bench_gpu.py --data cifar10 [--architecture net.json] [--device cuda]
        [--kinds residual,mbconv,dense] [--macs 4M,16M,50M] [--together 1,2,4,8] [--epochs 8]
        [--seconds 2] [--limit 540] [--json]

Three tables, to be pasted. `speed`: images a second of our loop with each step captured as a CUDA
graph, of the same loop without, and of forward and backward alone, captured as well. `packing`:
images a second of several processes on one GPU, over those of one. `accuracy`: ResNet-18 for 32
pixels, and the given architecture, trained for a few epochs and judged on the test images (on the
validation images where there are none, which the column then says), and how many such trials an
hour that makes. Published for comparison: cifar10-airbench reaches 94 % and 96 %. A table that
would begin after `limit` seconds is left out. `--device cpu` runs all of it without graphs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_training import architecture

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.capturing import CapturedStep
from nasfuse.costs import parse_budget, show_macs
from nasfuse.data.batches import Images, measure, subset
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import load_dataset, load_test
from nasfuse.memory import release_memory
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.references import load_architecture
from nasfuse.searching.sharing import mps_text
from nasfuse.training import Training, autocast, evaluate, recalibrate, reserve_memory

Row = dict[str, Any]
PUBLISHED = "cifar10-airbench, published: 94.01 % in 2.6 s and 96.00 % in 27 s of one A100"
LONG = 200  # steps between two looks at the clock: each draws an order and waits for the GPU


class Bench:
    """The images on the device, and the clock of the whole."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.monotonic()
        self.device = torch.device(options.device)
        self.dataset: Dataset = load_dataset(options.data, side=32)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > float(self.options.limit)

    def images(self, resolution: int, share: float = 1.0) -> Images:
        part = subset(self.dataset.train, share, 0)
        found = measure(self.dataset.train)
        return Images.of(part, found, resolution=resolution, device=self.device)

    def network(self, kind: str, macs: int) -> Architecture:
        return self.fitted(architecture(kind, macs, channels=self.dataset.channels))

    def fitted(self, found: Architecture) -> Architecture:
        """The architecture for these images."""
        sizes = {"channels": self.dataset.channels, "classes": len(self.dataset.classes)}
        return found.model_copy(update=sizes)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, run: Callable[[], int]) -> float:
        """Images a second of what is called again and again, by the clock, after the first time."""
        run()
        self.wait()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < self.options.seconds:
            done += run()
            self.wait()
        return done / (time.perf_counter() - began)


def stepping(training: Training) -> Callable[[], int]:
    def run() -> int:
        before = training.done
        training.advance(before + LONG)
        return (training.done - before) * training.recipe.batch

    return run


def alone(training: Training) -> Callable[[], int]:
    """Forward and backward of the same network on one batch that stays."""
    x, y = next(training.images.batches(training.recipe.batch))

    def arithmetic(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with autocast(training.device):
            outputs = training.network(x)
        training.network.zero_grad(set_to_none=True)
        loss: torch.Tensor = outputs.float().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    training.network.train()
    step = CapturedStep(arithmetic)

    def run() -> int:
        for _ in range(LONG):
            step(x, y)
        return LONG * len(x)

    return run


def speeds(bench: Bench) -> Iterator[Row]:
    options = bench.options
    for kind in options.kinds.split(","):
        for macs in map(parse_budget, options.macs.split(",")):
            found = bench.network(kind, macs)
            row: Row = {"blocks": kind, "macs": cost(found).macs}
            for name in ("graphs", "without", "alone"):
                row[name] = speed(bench, found, name)
            row["gain"] = row["graphs"] / row["without"]
            row["of alone"] = row["graphs"] / row["alone"]
            yield row


def speed(bench: Bench, found: Architecture, name: str) -> float:
    """Images a second of one column of the table."""
    training = _training(bench, found, epochs=100_000)
    if name == "without":
        training.compute = training._compute  # type: ignore[assignment]
    return bench.rate(alone(training) if name == "alone" else stepping(training))


def _training(bench: Bench, found: Architecture, *, epochs: int) -> Training:
    release_memory(bench.device)  # of the one before, whose graph would keep it
    torch.manual_seed(0)
    images = bench.images(found.resolution)
    recipe = Recipe(batch=bench.options.batch)
    return Training(build(found), images, recipe, epochs=epochs, seed=0)


def packing(bench: Bench) -> Iterator[Row]:
    """Processes that train at the same time, each of which prints its images a second."""
    options, first = bench.options, 0.0
    words = [f"--{name}={getattr(options, name)}" for name in ("data", "device", "batch", "macs")]
    words += [f"--kinds={options.kinds}", f"--seconds={4 * options.seconds}", "--member"]
    for count in map(int, options.together.split(",")):
        running = [
            subprocess.Popen(
                [sys.executable, __file__, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for process in running:  # all are ready before any begins
            assert process.stdout is not None
            process.stdout.readline()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        rates = [float(process.communicate()[0].split()[-1]) for process in running]
        first = first or sum(rates)
        yield {"at once": count, "images/s": sum(rates), "gain": sum(rates) / first}


def member(bench: Bench) -> None:
    """One of several processes: it says that it is ready, waits for the others, and measures."""
    kind, macs = bench.options.kinds.split(",")[0], bench.options.macs.split(",")[0]
    run = stepping(_training(bench, bench.network(kind, parse_budget(macs)), epochs=100_000))
    run()
    print("ready", flush=True)
    sys.stdin.readline()
    print(bench.rate(run))


def resnet18(bench: Bench) -> Architecture:
    """With a stem for small images: one convolution of 3 x 3, no pooling."""
    document = load_architecture("resnet18").document()
    stem = {"width": document["stem"]["width"], "kernel": 3, "stride": 1}
    found = parse_architecture({**document, "resolution": 32, "stem": stem}, where="ResNet-18")
    return bench.fitted(found)


def accuracies(bench: Bench) -> Iterator[Row]:
    options = bench.options
    networks = {"ResNet-18": resnet18(bench)} if not options.no_resnet else {}
    if options.architecture:
        document = json.loads(Path(options.architecture).read_text(encoding="utf-8"))
        found = bench.fitted(parse_architecture(document, where=options.architecture))
        networks[found.key] = found
    test = load_test(options.data, side=32)
    kind, held_out = ("test", test) if test else ("validation", bench.dataset.validation)
    for name, found in networks.items():
        began = time.perf_counter()
        training = _training(bench, found, epochs=options.epochs)
        for _ in range(options.epochs):
            training.epoch()
        recalibrate(training.network, training.images)
        bench.wait()
        seconds = time.perf_counter() - began
        images = Images.of(
            held_out,
            training.images.normalisation,
            resolution=found.resolution,
            device=bench.device,
        )
        accuracy = evaluate(training.network, images, batch=512).accuracy
        del training, images  # before the next one begins
        row = {"network": name, "macs": cost(found).macs, "epochs": options.epochs}
        yield {**row, f"{kind} accuracy": accuracy, "seconds": seconds, "an hour": 3600 / seconds}


TABLES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "speed": speeds,
    "packing": packing,
    "accuracy": accuracies,
}


def _cell(name: str, value: object) -> str:
    if name == "macs":
        return show_macs(int(str(value)))
    if isinstance(value, float):
        return f"{value:.4f}" if name.endswith("accuracy") else f"{value:,.4g}"
    return str(value)


def run(options: argparse.Namespace) -> None:
    bench = Bench(options)
    if options.member:
        member(bench)
        return
    device = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU"
    about = f"{device}, torch {torch.__version__}, {options.data}, batch {options.batch}"
    found: dict[str, list[Row]] = {}
    if not options.json:
        print(f"{about}; {mps_text()}\n{PUBLISHED}")
    for name, table in TABLES.items():
        found[name] = []
        if bench.late:
            print(f"{name}: left out after {options.limit:g} seconds", file=sys.stderr)
            continue
        for row in table(bench):
            if not options.json and not found[name]:
                print(f"\n{name}\n\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
            found[name].append(row)
            if not options.json:
                cells = (_cell(*item) for item in row.items())
                print(f"| {' | '.join(cells)} |", flush=True)
    if options.json:
        print(json.dumps({"machine": about, "mps": mps_text(), "tables": found}))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--architecture", help="a JSON file, such as a trial's architecture.json")
    parser.add_argument("--kinds", default="residual,mbconv,dense")
    parser.add_argument("--macs", default="4M,16M,50M")
    parser.add_argument("--batch", type=int, default=Recipe().batch)
    parser.add_argument("--together", default="1,2,4,8")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--no-resnet", action="store_true", help="only the given architecture")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--limit", type=float, default=540.0, help="begin no table after these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    reserve_memory()
    run(options)


if __name__ == "__main__":
    main()
