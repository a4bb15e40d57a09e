"""How fast a folder of photos becomes batches, against a PyTorch DataLoader with Pillow.

    python scripts/bench_data.py [--images 20000] [--pixels 128] [--side 64] [--workers 2] [--json]

Makes JPEGs from a seed in a temporary folder: smooth noise, in ten classes. Each row is a process
of its own that loads the folder, normalises and resizes, and goes over all training images twice.
`nasfuse cold` has nothing cached, `nasfuse warm` finds what the cold one left; the DataLoader
decodes every image in every epoch, as it does by default. All give batches of 32 at the same side.
Seconds count from before the folder is looked at; the imports before that are not counted. Memory
is the sum of what the processes of a row do not share, and their shares of the rest (PSS), at most.
On a busy machine look at the CPU's seconds; `load before` says how busy it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

SEED, CLASSES, BATCH, EPOCHS = 2026, 10, 32, 2
ROWS = ("nasfuse cold", "nasfuse warm", "DataLoader")


def make(folder: Path, images: int, pixels: int) -> None:
    """The same files for the same numbers, a folder a class."""
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)

    def write(number: int) -> None:
        generator = np.random.default_rng((SEED, number))
        coarse = generator.integers(0, 255, (16, 16, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
        smooth.save(folder / f"class{number % CLASSES}" / f"{number}.jpg", quality=85)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(images)))


class Memory:
    """The most that this process and its children took together, looked at five times a second."""

    def __init__(self) -> None:
        import psutil

        self.process, self.most = psutil.Process(), 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.done.wait(0.2):
            self._look()

    def _look(self) -> None:
        import psutil

        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended
                continue
        self.most = max(self.most, total)

    def end(self) -> int:
        self.done.set()
        self.thread.join()
        self._look()  # what took less than one wait was never seen
        return self.most


def ours(folder: Path, side: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What a search does, up to the batches; threads decode, as many as there are cores."""
    from nasfuse.data.batches import Images, measure
    from nasfuse.data.load import load_dataset

    del workers
    dataset = load_dataset(str(folder), side=side, seed=0)
    normalisation = measure(dataset.train)
    cpu = torch.device("cpu")
    images = Images.of(dataset.train, normalisation, resolution=side, device=cpu)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        yield from images.batches(BATCH, order=order)


class Folder(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What is written for a DataLoader: a list of files, opened one by one."""

    def __init__(self, files: list[Path], side: int) -> None:
        names = sorted({file.parent.name for file in files})
        self.items = [(file, names.index(file.parent.name)) for file in files]
        self.side = side

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.items[index]
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (self.side, self.side))
        pixels: NDArray[np.uint8] = np.asarray(square)
        return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255)), label


def theirs(folder: Path, side: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the four fifths of the files that `ours` trains on as well."""
    files = sorted(folder.glob("*/*.jpg"))
    kept = [file for number, file in enumerate(files) if number % 5]
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    loader = torch.utils.data.DataLoader(
        Folder(kept, side), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    for _ in range(EPOCHS):
        for images, labels in loader:
            yield (images - mean) / std, labels


def measure_row(row: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process."""
    import nasfuse.data.load  # noqa: F401  # imports are not what is measured

    torch.set_num_threads(1)
    memory, before = Memory(), time.process_time()
    began = time.perf_counter()
    first, seen = 0.0, 0
    per_epoch: list[float] = []
    source = theirs if row == "DataLoader" else ours
    total = EPOCHS * (options.images - options.images // 5)
    for images, _ in source(folder, options.side, options.workers):
        first = first or time.perf_counter() - began
        seen += len(images)
        if seen >= (len(per_epoch) + 1) * total // EPOCHS:
            per_epoch.append(time.perf_counter() - began)
    later = per_epoch[1] - per_epoch[0]
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "first batch (s)": round(first, 2),
        "first epoch (s)": round(per_epoch[0], 2),
        "second epoch (s)": round(later, 2),
        "images/s, second epoch": round(total / EPOCHS / later),
        "CPU, both epochs (s)": round(sum(u.ru_utime + u.ru_stime for u in usages) - before, 1),
        "memory (MB)": round(memory.end() / 2**20),
    }


def run(row: str, folder: Path, cache: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row, in a process of its own."""
    asked = [f"--{name}={getattr(options, name)}" for name in ("images", "side", "workers")]
    found = subprocess.run(
        [sys.executable, __file__, *asked, "--row", row, "--folder", str(folder)],
        env={**os.environ, "NASFUSE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(found.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure_row(options.row, options.folder, options)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        photos, cache = Path(scratch) / "photos", Path(scratch) / "cache"
        make(photos, options.images, options.pixels)
        size = sum(file.stat().st_size for file in photos.glob("*/*"))
        found = {row: run(row, photos, cache, options) for row in ROWS}
        kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    setting = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load before": round(load, 1),
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"Pillow {PIL.__version__}",
        "images": options.images,
        "pixels": options.pixels,
        "side": options.side,
        "workers": options.workers,
        "seed": SEED,
        "files (MB)": round(size / 1e6, 1),
        "cache (MB)": round(kept / 1e6, 1),
    }
    if options.json:
        print(json.dumps({**setting, "rows": found}))
        return
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    columns = list(found[ROWS[0]])
    print(f"{'':<14}" + "".join(f"{name:>24}" for name in columns))
    for row, figures in found.items():
        print(f"{row:<14}" + "".join(f"{figures[name]:>24}" for name in columns))


if __name__ == "__main__":
    main()
