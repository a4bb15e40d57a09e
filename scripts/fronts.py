"""Fronts of made-up accuracies in a real space, and how long samplers take to propose there."""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import optuna
from made_up import Accuracies
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial
from paired import difference

from nasfuse.pareto import Point, front, hypervolume
from nasfuse.searching.members import Replay
from nasfuse.searching.proposing import domain as domain_of
from nasfuse.searching.samplers import make_sampler
from nasfuse.space import load_space

SPACE_BUDGET = 400_000_000
EVALUATIONS = 100


def front_volume(space: str, job: tuple[str, int]) -> float:
    """Hypervolume of the true accuracies of the front that was observed, references first."""
    (name, seed), budget = job, SPACE_BUDGET
    searched, accuracies = load_space(space), Accuracies(seed)
    domain, generator = domain_of(searched, budget), random.Random(seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=("maximize", "minimize"), sampler=make_sampler(name, domain, seed)
    )
    for reference in searched.references:
        study.enqueue_trial(searched.reference(reference) | {"share": 1.0})
    told = []
    for _ in range(EVALUATIONS):
        trial = study.ask()
        domain.suggest(trial)
        genes = {n: v for n, v in trial.params.items() if n != "share"}
        share = float(trial.params["share"])
        seen = accuracies.observed(genes, share, generator)
        study.tell(trial, [seen, share * budget])
        told.append((Point(seen, share * budget), accuracies.true(genes, share)))
    kept = [told[i] for i in front([point for point, _ in told])]
    return hypervolume([Point(true, point.cost) for point, true in kept], budget=budget)


def bench_space(options: argparse.Namespace) -> dict[str, Any]:
    names, seeds = options.samplers.split(","), range(options.seeds)
    jobs = [(name, seed) for name in names for seed in seeds]
    work = partial(front_volume, options.space)
    with ProcessPoolExecutor(options.workers) as pool:
        volumes = dict(zip(jobs, pool.map(work, jobs), strict=True))
    found = {n: np.array([volumes[n, s] for s in seeds]) for n in names}
    return {
        name: {
            "hypervolume": round(float(volume.mean()), 4),
            "error": round(float(volume.std(ddof=1)) / math.sqrt(len(volume)), 4),
            **{
                f"- {base}": difference(volume - found[base], digits=4)
                for base in ("random", "tpe")
                if base in found and name != base
            },
        }
        for name, volume in found.items()
    }


def ask_times(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one ask in the default space, the median and the largest of ten."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    times: dict[str, Any] = {}
    for name in options.samplers.split(","):
        for finished in (100, 1000, 10_000):
            took = sorted(_asks(name, finished, asks=10))
            times.setdefault(name, {})[finished] = [
                round(statistics.median(took), 1),
                round(took[-1], 1),
            ]
    return times


def _asks(name: str, finished: int, *, asks: int) -> Iterator[float]:
    space, accuracies, generator = load_space("default"), Accuracies(0), random.Random(0)
    domain = domain_of(space, SPACE_BUDGET)
    study = optuna.create_study(
        directions=("maximize", "minimize"), sampler=make_sampler(name, domain, 0)
    )
    for _ in range(finished):
        ranges: dict[str, BaseDistribution] = {}
        replay = Replay({}, generator, ranges)
        domain.suggest(replay)
        genes = {n: v for n, v in replay.params.items() if n != "share"}
        share = float(replay.params["share"] or 1)
        values = [accuracies.observed(genes, share, generator), share * SPACE_BUDGET]
        study.add_trial(create_trial(params=replay.params, distributions=ranges, values=values))
    for _ in range(asks):
        began = time.perf_counter()
        trial = study.ask()
        domain.suggest(trial)
        yield (time.perf_counter() - began) * 1e3
        share = float(trial.params["share"])
        study.tell(trial, [accuracies.observed(trial.params, share, generator), share])
