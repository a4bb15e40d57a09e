"""Peak memory of training DenseNet-like networks, with and without recomputation.

    python scripts/bench_memory.py [--depths 8,16,32] [--growth 12] [--batch 128] [--device cpu]
        [--json]

Each training is a process of its own, so that its peak is its own: on a CPU the resident memory
beyond that of a training with a batch of two, on a GPU what torch's allocator reserves. `estimate`
is what is compared with the memory that is there to choose recomputation. Seconds are of a step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.capturing import WARMUP
from nasfuse.data.batches import Images, Normalisation
from nasfuse.memory import needed_memory
from nasfuse.network import build, cost
from nasfuse.ops.recomputing import recompute
from nasfuse.recipe import Recipe
from nasfuse.searching.probing import Meter
from nasfuse.training import Training, reserve_memory

TIMED, SIDE = 3, 32


def densenet(depth: int, growth: int) -> Architecture:
    """DenseNet-BC for images of 32 pixels: three stages of `depth` layers."""
    stage = {
        "depth": depth,
        "stride": 1,
        "block": {"kind": "dense", "kernel": 3, "bottleneck": 4},
        "fusion": ["concat"] * depth,
        "growth": growth,
    }
    closed = {**stage, "transition": {"compression": 0.5}}
    document = {
        "resolution": SIDE,
        "channels": 3,
        "classes": 10,
        "activation": "relu",
        "stem": {"width": 2 * growth, "kernel": 3, "stride": 1},
        "stages": [closed, closed, stage],
        "head": {"kind": "norm"},
    }
    return parse_architecture(document, where="the benchmark")


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Of one training, in this process: bytes at its peak, and seconds of a step."""
    torch.set_num_threads(1)
    reserve_memory()
    device, [depth] = torch.device(options.device), options.depths
    architecture = densenet(depth, options.growth)
    first = 1 if device.type == "cpu" else WARMUP + 1  # until a step was captured
    steps = first + TIMED
    pixels = torch.randint(0, 256, (steps * options.batch, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.randint(0, 10, (len(pixels),))
    flat = Normalisation((0.5,) * 3, (0.25,) * 3)
    images = Images(pixels.to(device), labels.to(device), flat, SIDE)

    def training(batch: int) -> Training:
        torch.manual_seed(0)
        network = build(architecture)
        if options.recompute:
            recompute(network)
        return Training(network, images, Recipe(batch=batch), epochs=1, seed=0)

    training(2).advance(steps)
    before = Meter(device).peak if device.type == "cpu" else 0
    run = training(options.batch)
    run.advance(first)
    began = time.perf_counter()
    run.advance(steps)
    seconds = (time.perf_counter() - began) / TIMED
    if device.type == "cpu":
        return {"peak": Meter(device).peak - before, "seconds": seconds}
    run.compute(*next(images.batches(options.batch - 1)))  # as an epoch ends, beside the graph
    return {"peak": torch.cuda.max_memory_reserved(device), "seconds": seconds}


def elsewhere(depth: int, options: argparse.Namespace, *, recomputed: bool) -> dict[str, Any]:
    words = [f"--depths={depth}", f"--growth={options.growth}", f"--batch={options.batch}"]
    words += [f"--device={options.device}", "--alone", *(["--recompute"] if recomputed else [])]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument("--depths", type=numbers, default=[8, 16, 32])
    parser.add_argument("--growth", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--recompute", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options)))
        return
    rows = []
    for depth in options.depths:
        architecture = densenet(depth, options.growth)
        plain, saving = (elsewhere(depth, options, recomputed=how) for how in (False, True))
        needed = needed_memory(architecture, options.batch, device=torch.device(options.device))
        rows.append({"layers": 3 * depth, "macs": cost(architecture).macs, "estimate": needed})
        rows[-1] |= {"plain": plain, "recomputed": saving}
        if not options.json:
            words = [
                f"{name} {one['peak'] / 1e6:6.0f} MB, {one['seconds']:6.2f} s"
                for name, one in (("plain", plain), ("recomputed", saving))
            ]
            words.append(f"{saving['peak'] / plain['peak']:.2f} of the memory")
            words.append(f"estimate of plain {needed / 1e6:.0f} MB")
            print(f"{3 * depth:4} layers  ", "   ".join(words), flush=True)
    if options.json:
        print(json.dumps({"torch": torch.__version__, "device": options.device, "rows": rows}))


if __name__ == "__main__":
    main()
