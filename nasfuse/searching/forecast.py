"""Forecast: what a search will take, from a few batches of training measured on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from nasfuse.architecture import Architecture
from nasfuse.capturing import WARMUP
from nasfuse.data.batches import Images, Normalisation, subset
from nasfuse.data.dataset import Dataset
from nasfuse.errors import BudgetError
from nasfuse.finals import FINALISTS, REPEATS
from nasfuse.memory import release_memory
from nasfuse.network import build, cost
from nasfuse.scaling import fit_to_budget, smallest
from nasfuse.searching.extremes import reachable
from nasfuse.searching.limits import Limits
from nasfuse.searching.probing import Meter
from nasfuse.searching.proposing import smallest_share
from nasfuse.searching.rungs import Ladder
from nasfuse.searching.study import Settings
from nasfuse.searching.worker import JUDGED
from nasfuse.training import Training, evaluate, reserve_memory

MEASURED = 4  # networks, of which the targets are evenly spaced as proposals' are
BATCHES, REPLAYED = 2, 50  # whose time is taken: on a CPU, and on a GPU, where they are quick
BYTES = 4  # of a parameter in a file
BETWEEN = 0.1  # seconds of a worker that pass between two trials
STUDY = 15_000_000  # bytes of a small study's report, databases and what MLflow has of it
COPIES = 3  # of the parameters in a checkpoint: the weights, their momentum and their average


@dataclass(frozen=True)
class Speed:
    """Seconds for one image of a network: to train on it and to judge by it."""

    train: float
    judge: float


@dataclass(frozen=True)
class Forecast:
    """About what a search takes: seconds of the clock, bytes of a worker and of the disk.

    `full` are the seconds of one full training of a network that uses the whole budget, `least` and
    `most` MACs of networks of the space, `fitting` is the share of it that can meet the budget.
    """

    least: int
    most: int
    fitting: float
    trials: int
    seconds: float
    full: float
    memory: int
    disk: int


def forecast(
    settings: Settings, dataset: Dataset, limits: Limits, workers: int, *, device: torch.device
) -> Forecast:
    """Train four networks for a few batches each, and scale up. Takes seconds; writes nothing."""
    torch.set_num_threads(1)
    reserve_memory()
    speeds = [_measure(network, settings, dataset, device) for network in _members(settings)]
    recipe, size = settings.recipe, (len(dataset.train), len(dataset.validation))
    rungs = [_seconds(recipe.work(rung), speeds, size) for rung in range(len(recipe.rungs))]
    full = recipe.rungs[recipe.top].passes * size[0] * speeds[0].train + size[1] * speeds[0].judge
    shares = Ladder(recipe, budget=settings.budget).shares
    each = sum(share * seconds for share, seconds in zip(shares, rungs, strict=True))
    finals = (FINALISTS + 1) * REPEATS * full
    trials, seconds = _extent(limits, workers, each=each, finals=finals)
    disk = disk_needed(settings, trials, workers)
    reach = reachable(settings.search_space)
    fitting = reach.fitting(settings.budget)
    memory = Meter(device).peak
    return Forecast(reach.least, reach.most, fitting, trials, seconds, full, memory, disk)


def disk_needed(settings: Settings, trials: int, workers: int) -> int:
    """About the bytes that so many networks leave: weights, checkpoints, the study's own files."""
    params = [cost(network).params for network in _members(settings)]
    shares = Ladder(settings.recipe, budget=settings.budget).shares
    files = sum(shares) + COPIES * sum(shares[1:2])  # and the checkpoint of a pause
    running = 2 * COPIES * workers * max(params)  # the last two checkpoints of each
    return STUDY + round(BYTES * (trials * files * fmean(params) + running))


def _members(settings: Settings) -> Sequence[Architecture]:
    """A random member of the space at each share of the budget, or the smallest that it allows."""
    space = settings.search_space
    least = smallest_share(settings.budget, settings.front_from)
    found: list[Architecture] = []
    for seed in range(100):
        candidate, share = space.sample(seed), least ** (len(found) / (MEASURED - 1))
        try:
            fitted = fit_to_budget(
                candidate.architecture, candidate.scaling, int(share * settings.budget)
            )
        except BudgetError:
            continue
        found.append(fitted)
        if len(found) == MEASURED:
            break
    return found or [smallest(candidate.architecture, candidate.scaling)]


def _measure(
    network: Architecture, settings: Settings, dataset: Dataset, device: torch.device
) -> Speed:
    recipe = settings.recipe
    normalisation = Normalisation(settings.mean, settings.std)
    captures = device.type == "cuda"
    if captures:
        release_memory(device)  # of the network before, whose graph would keep it
    first, timed = (WARMUP + 1, REPLAYED) if captures else (1, BATCHES)
    few = (first + timed) * recipe.batch / len(dataset.train)
    part = subset(dataset.train, min(1.0, few), 0)
    images = Images.of(part, normalisation, resolution=network.resolution, device=device)
    # two epochs: where all images are one batch, the second is what is timed
    training = Training(build(network), images, recipe, epochs=2, seed=0)
    first = min(first, max(1, training.per_epoch - 1))
    training.advance(first)  # they prepare what the others use, and the graph of a GPU
    began = time.perf_counter()
    training.advance(training.steps)
    trained = min(len(images), (training.done - first) * recipe.batch)
    train = (time.perf_counter() - began) / trained
    began = time.perf_counter()
    evaluate(training.network, images, batch=JUDGED[device.type])
    return Speed(train, (time.perf_counter() - began) / len(images))


def _seconds(passes: float, speeds: Sequence[Speed], size: tuple[int, int]) -> float:
    """Of one network on a rung, the mean over networks that cost from the least to all."""
    train, validation = size
    return fmean(passes * train * s.train + validation * s.judge for s in speeds)


def _extent(limits: Limits, workers: int, *, each: float, finals: float) -> tuple[int, float]:
    """Networks and seconds, whichever limit ends the search first."""
    by_trials = limits.trials or sys.maxsize
    each += BETWEEN
    seconds = (by_trials * each + finals) / workers
    if limits.seconds is not None and limits.seconds < seconds:
        return max(1, min(by_trials, int(0.8 * limits.seconds * workers / each))), limits.seconds
    return by_trials, seconds
