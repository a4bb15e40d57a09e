"""How soon a way of searching holds a network of a given quality: curves, targets, ratios.

A run is a list of full trainings in the order in which they ended. What it holds is the network of
the highest validation accuracy so far; how good that is, the judged accuracy says, on images that
no search has seen. Runs are compared by their mean curve over CPU-seconds, which is made to never
fall (isotonic regression), for a single one crosses any target by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

POINTS = 400  # of time, at equal ratios
ORDERS = 400  # in which random search could have met its networks
RESAMPLES, FEWER = 400, 50  # for intervals, and the orders of each

Curves = NDArray[np.float64]  # (runs, points of time)


class Trained(NamedTuple):
    """A full training: CPU-seconds that its run had spent when it ended, and two accuracies."""

    spent: float
    validation: float
    judged: float


Run = Sequence[Trained]


def held(run: Run, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The judged accuracy of what a run holds at each time; 0 before its first full training."""
    values, best = [0.0], -1.0
    for trained in run:
        better = trained.validation > best
        best = max(best, trained.validation)
        values.append(trained.judged if better else values[-1])
    return np.array(values)[np.searchsorted([t.spent for t in run], times, side="right")]


def alone(runs: Sequence[Run]) -> Run:
    """The trainings of all these runs, each with its own seconds."""
    pool = []
    for run in runs:
        before = 0.0
        for trained in run:
            pool.append(trained._replace(spent=trained.spent - before))
            before = trained.spent
    return pool


def shuffled(pool: Run, count: int, times: NDArray[np.float64], seed: int, orders: int) -> Curves:
    """What random search holds that meets `count` of these networks, in many orders.

    Each is as likely as that of any run of it.
    """
    generator, curves = np.random.default_rng(seed), []
    for _ in range(orders):
        chosen = generator.choice(len(pool), count, replace=False)
        spent = np.cumsum([pool[i].spent for i in chosen])
        run = [pool[i]._replace(spent=float(s)) for i, s in zip(chosen, spent, strict=True)]
        curves.append(held(run, times))
    return np.array(curves)


def never_falling(curves: Curves) -> NDArray[np.float64]:
    """The mean of runs at each time, as near as a curve can be that never falls."""
    found: NDArray[np.float64] = isotonic_regression(curves.mean(0)).x
    return found


def reach(curves: Curves, target: float, times: NDArray[np.float64]) -> tuple[float, bool]:
    """Seconds until runs hold the target on average; the last, and False, where they do not."""
    there = never_falling(curves) >= target
    return (float(times[there.argmax()]), True) if there.any() else (float(times[-1]), False)


def compare(runs: dict[str, list[Run]], count: int, ours: Sequence[str]) -> dict[str, Any]:
    """The target and a row a way of searching, with ratios to the seconds of ours.

    The target is what random search holds on average after `count` full trainings. Who does not
    reach it in the seconds that these take counts with them all. Intervals are of draws of the
    runs, and of random search's networks, which change the target.
    """
    pool = alone(runs["random"])
    end = count * float(np.mean([t.spent for t in pool]))
    times = np.geomspace(min(t.spent for t in pool) / 4, end, POINTS)
    curves = {name: np.array([held(run, times) for run in found]) for name, found in runs.items()}
    curves["random"] = shuffled(pool, count, times, 0, ORDERS)
    target = float(never_falling(curves["random"])[-1])
    reached = {name: reach(found, target, times) for name, found in curves.items()}
    draws = _draws(curves, pool, count, times)
    rows = []
    for name, (seconds, there) in reached.items():
        others = {o: _ratio(seconds / reached[o][0], draws[name] - draws[o]) for o in ours}
        rows.append(
            {
                "strategy": name,
                "runs": len(runs[name]),
                "trainings": round(float(np.mean([len(run) for run in runs[name]])), 1),
                "CPU-seconds": round(seconds, 1),
                "reached": there,
                "at the end": round(float(never_falling(curves[name])[-1]), 4),
                "first": [round(float(v), 4) for v in _first(runs[name])],
                "times": others,
            }
        )
    judged = [trained.judged for trained in pool]
    random = [round(float(v), 4) for v in (np.mean(judged), np.std(judged, ddof=1))]
    found = {"target": round(target, 4), "seconds": round(end, 1), "random networks": random}
    return {**found, "rows": rows}


def _first(runs: Sequence[Run]) -> NDArray[np.float64]:
    """When the first full training has ended, and how good its network is: means over the runs."""
    firsts = [(run[0].spent, run[0].judged) for run in runs]
    return np.asarray(np.mean(firsts, axis=0))


def _draws(
    curves: dict[str, Curves], pool: Run, count: int, times: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Logarithms of the seconds to the target, when runs and networks are drawn again."""
    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in curves}
    for number in range(RESAMPLES):
        again = [pool[i] for i in generator.integers(0, len(pool), len(pool))]
        orders = shuffled(again, count, times, number + 1, FEWER)
        target = float(never_falling(orders)[-1])
        for name, curve in curves.items():
            rows = generator.integers(0, len(curve), len(curve))
            drawn = orders if name == "random" else curve[rows]
            found[name].append(math.log(reach(drawn, target, times)[0]))
    return {name: np.array(values) for name, values in found.items()}


def _ratio(value: float, logs: NDArray[np.float64]) -> list[float]:
    low, high = np.exp(np.percentile(logs, [2.5, 97.5]))
    return [round(v, 2) for v in (value, float(low), float(high))]
