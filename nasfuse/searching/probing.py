"""Probe: the memory that training some networks takes at its peak, measured on a device.

It is a program of its own, `python -m nasfuse.searching.probing`, for what a process takes on a GPU
is free again only when it ends. It reads a request from its standard input and prints the probe.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psutil
import torch

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.capturing import WARMUP
from nasfuse.data.batches import Images, Normalisation
from nasfuse.memory import free_memory, is_out_of_memory, release_memory
from nasfuse.network import build
from nasfuse.recipe import Recipe
from nasfuse.searching.worker import JUDGED
from nasfuse.training import Training, evaluate, reserve_memory

STEPS = WARMUP + 2  # the capture of a step, and one that is replayed
MOST_CONTEXT = 10**9  # bytes of CUDA's own; what is taken beyond that is somebody else's


class Probe(NamedTuple):
    """Bytes: what one process took at most, and what was free, and there at all, before it began.

    Where a network did not fit, the peak is all that was free.
    """

    peak: int
    free: int
    total: int


class Meter:
    """Reads the memory of a device, of which a process takes some by using it at all."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            free, self.total = torch.cuda.mem_get_info(device)
            free += torch.cuda.memory_reserved(device)  # by this process, and part of its peak
            self.own = min(self.total - free, MOST_CONTEXT)
        else:
            free, self.total = free_memory(), psutil.virtual_memory().total
            self.own = psutil.Process().memory_info().rss
        self.free = free + self.own

    @property
    def peak(self) -> int:
        """Bytes that this process has taken at most."""
        if self.device.type == "cuda":
            return self.own + int(torch.cuda.max_memory_reserved(self.device))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def probe(architectures: Iterable[Architecture], images: Images, recipe: Recipe) -> Probe:
    """Train each network for a few steps on images like these, and judge it, in turn."""
    device = images.pixels.device
    meter, fits = Meter(device), True
    for architecture in architectures:
        at = Images(images.pixels, images.labels, images.normalisation, architecture.resolution)
        try:
            _train(architecture, at, recipe)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        release_memory(device)
    return Probe(meter.peak if fits else meter.free, meter.free, meter.total)


def _train(architecture: Architecture, images: Images, recipe: Recipe) -> None:
    training = Training(build(architecture), images, recipe, epochs=STEPS, seed=0)
    while training.done < STEPS:
        training.advance(STEPS)
    # the last batch of an epoch, which is no replay: it takes its memory beside that of the graph
    training.compute(*next(images.batches(max(2, recipe.batch - 1))))
    batch = JUDGED[training.device.type]
    count = 2 * batch
    some = Images(
        images.pixels[:count], images.labels[:count], images.normalisation, images.resolution
    )
    evaluate(training.network, some, batch=batch)


def answer(request: Mapping[str, Any]) -> Probe:
    """Of a request: its device, recipe, architectures and the count and shape of images there."""
    device, (count, *shape) = torch.device(request["device"]), request["images"]
    recipe = Recipe.model_validate(request["recipe"])
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, device=device)
    documents = [json.loads(text) for text in request["architectures"]]
    labels = torch.randint(0, documents[0]["classes"], (count,), device=device)
    normalisation = Normalisation((0.5,) * shape[0], (0.25,) * shape[0])
    images = Images(pixels, labels, normalisation, shape[-1])
    return probe([parse_architecture(one, where="a probe") for one in documents], images, recipe)


if __name__ == "__main__":
    torch.set_num_threads(1)
    reserve_memory()
    print(json.dumps(answer(json.load(sys.stdin))._asdict()))
