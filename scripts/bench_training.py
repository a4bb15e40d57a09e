"""Images per CPU-second of training: our loop, a plain one, and the arithmetic alone.

    python scripts/bench_training.py [--kinds residual,mbconv,dense] [--macs 1M,4M,16M,50M]
        [--seconds 4] [--rounds 3] [--json]
    python scripts/bench_training.py --device cuda ...   is scripts/bench_gpu.py, with its options

One thread each, on images of 32 pixels in three channels. `plain` is the loop that PyTorch's
tutorials write: a DataLoader over a data set with a transform, float32, SGD, the loss read at
every step. `ours` is what a search runs. `ceiling` is forward and backward of the same network, in
the same types and layout, on one batch that stays, without data, loss or optimiser. Rounds of the
three alternate, and the median ratio counts, for machines are noisy. CPU-seconds are the process's.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nasfuse.architecture import Architecture, Scaling, parse_architecture
from nasfuse.costs import parse_budget
from nasfuse.data.batches import Images, Normalisation
from nasfuse.data.dataset import Split
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.scaling import fit_to_budget
from nasfuse.training import Training, autocast, reserve_memory

COUNT, SIDE, CHANNELS, CLASSES = 4096, 32, 3, 10
FUSIONS = {"residual": "add", "mbconv": "add", "dense": "concat_conv", "aff": "aff"}
Steps = Iterator[int]  # images of each step that was done


class Photos(Dataset[tuple[Tensor, int]]):
    """One image after the other, as a data set with a transform gives them."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(self.split.images[index]).float() / 255
        return (pixels - 0.5) / 0.25, int(self.split.labels[index])


def architecture(
    kind: str, macs: int, *, side: int = SIDE, channels: int = CHANNELS
) -> Architecture:
    """Three stages of two blocks of a kind, scaled to the cost."""
    block = {"kind": "residual" if kind == "aff" else kind, "kernel": 3}
    block |= {"expand": 4} if kind == "mbconv" else {}
    block |= {"bottleneck": 1} if kind == "dense" else {}
    fusion = [{"kind": FUSIONS[kind]} | ({"reduction": 4} if kind == "aff" else {})] * 2
    stages = [
        {"depth": 2, "stride": stride, "block": block, "fusion": fusion, "width": width}
        for stride, width in ((1, 16), (2, 32), (2, 64))
    ]
    document = {
        "resolution": side,
        "channels": channels,
        "classes": CLASSES,
        "activation": "relu",
        "stem": {"width": 16, "kernel": 3, "stride": 2},
        "stages": stages,
        "head": {"kind": "mean"},
    }
    start = parse_architecture(document, where="the benchmark")
    return fit_to_budget(start, Scaling(alpha=1.0, beta=1.4, gamma=1.0), macs)


def in_memory(split: Split) -> Images:
    normalisation = Normalisation((0.5,) * CHANNELS, (0.25,) * CHANNELS)
    return Images.of(split, normalisation, resolution=SIDE, device=torch.device("cpu"))


def ours(network: nn.Module, split: Split, recipe: Recipe) -> Steps:
    training = Training(network, in_memory(split), recipe, epochs=1000, seed=0)
    while True:
        before = training.done
        training.advance(training.done + 16)  # an epoch takes more, and looks around as often
        yield (training.done - before) * recipe.batch


def plain(network: nn.Module, split: Split, recipe: Recipe) -> Steps:
    loader = DataLoader(Photos(split), batch_size=recipe.batch, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    running = 0.0
    network.train()
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(network(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
            yield len(y)


def ceiling(network: nn.Module, split: Split, recipe: Recipe) -> Steps:
    device = torch.device("cpu")
    images = Images.of(
        split, Normalisation((0.5,) * 3, (0.25,) * 3), resolution=SIDE, device=device
    )
    network = Training(network, images, recipe, epochs=1, seed=0).network  # its types and layout
    parameters = list(network.parameters())
    x, _ = next(images.batches(recipe.batch))
    network.train()
    while True:
        with autocast(device):
            outputs = network(x)
        torch.autograd.grad(outputs.float().sum(), parameters)
        yield len(x)


LOOPS: dict[str, Callable[[nn.Module, Split, Recipe], Steps]] = {
    "plain": plain,
    "ours": ours,
    "ceiling": ceiling,
}


def speed(steps: Steps, seconds: float) -> float:
    began, images = time.process_time(), 0
    while time.process_time() - began < seconds:
        images += next(steps)
    return images / (time.process_time() - began)


def measure(found: Architecture, split: Split, options: argparse.Namespace) -> dict[str, float]:
    """Median speeds, and medians of the ratios of each round."""
    recipe = Recipe()
    running = {}
    for name, loop in LOOPS.items():
        torch.manual_seed(0)
        running[name] = loop(build(found), split, recipe)
        speed(running[name], options.seconds / 4)  # warm up
    rounds = [
        {name: speed(steps, options.seconds) for name, steps in running.items()}
        for _ in range(options.rounds)
    ]
    row = {name: statistics.median(r[name] for r in rounds) for name in LOOPS}
    row["to plain"] = statistics.median(r["ours"] / r["plain"] for r in rounds)
    row["to ceiling"] = statistics.median(r["ours"] / r["ceiling"] for r in rounds)
    return row


def main() -> None:
    if "--device" in " ".join(sys.argv):
        import bench_gpu

        bench_gpu.main(sys.argv[1:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default="residual,aff,dense,mbconv")
    parser.add_argument("--macs", default="1M,4M,16M,50M")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reserve_memory()
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (COUNT, CHANNELS, SIDE, SIDE), dtype=np.uint8)
    split = Split(pixels, random.integers(0, CLASSES, COUNT))
    rows = []
    for kind in options.kinds.split(","):
        for macs in map(parse_budget, options.macs.split(",")):
            found = architecture(kind, macs)
            rows.append({"kind": kind, "macs": cost(found).macs, **measure(found, split, options)})
            if not options.json:
                row = rows[-1]
                cells = [f"{name} {row[name]:8.1f}" for name in LOOPS]
                ratios = f"{row['to plain']:5.2f} x plain  {row['to ceiling']:5.1%} of the ceiling"
                print(f"{kind:9} {row['macs'] / 1e6:6.1f}M", *cells, ratios, sep="  ", flush=True)
    means = {
        name: math.exp(statistics.fmean(math.log(row[name]) for row in rows))
        for name in ("to plain", "to ceiling")
    }
    if options.json:
        machine = {"processor": platform.processor(), "torch": torch.__version__}
        print(json.dumps({"machine": machine, "rows": rows, "geometric means": means}))
    else:
        print(f"geometric means: {means['to plain']:.2f} x plain, {means['to ceiling']:.1%}")


if __name__ == "__main__":
    main()
