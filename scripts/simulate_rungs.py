"""How many networks should go up a rung? A simulation with measured rank correlations.

    python scripts/simulate_rungs.py [--first 0.80] [--pause 0.92] [--end 0.96] [--json]

Networks of one band of cost have a normal quality. Each of the three scores (first rung, pause,
end) is correlated with it as `scripts/audit_rungs.py` measured; errors of the first two share a
part. Networks are drawn at random, so this says nothing about samplers. Prints how many times less
compute than N full trainings a search takes until its first fully trained network reaches the
median best of N, for shares `1 in KEEP` after the first rung and `1 in RESUME` (rounded up) after
the pause: geometric means over the runs.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
from numpy.typing import NDArray

from nasfuse.searching.rungs import KEEP, RESUME

FIRST_COST, PAUSED = 0.07, 0.25  # in full trainings
SHARED = 0.3  # correlation of the errors of the first rung and of the pause
MOST = 1000  # networks tried
PAIRS = ((4, 4), (4, 2), (8, 2), (8, 3), (8, 4), (12, 3), (16, 3))
TRAININGS = (12, 24, 48)

Array = NDArray[np.float64]


def scores(count: int, like: tuple[float, float, float], random: np.random.Generator) -> Array:
    """(first rung, pause, end) x networks."""
    quality, errors = random.normal(size=count), random.normal(size=(3, count))
    errors[1] = SHARED * errors[0] + math.sqrt(1 - SHARED**2) * errors[1]
    part = np.array(like)[:, None]
    return np.asarray(part * quality + np.sqrt(1 - part**2) * errors)


def spent(found: Array, target: float, *, keep: int, resume: int) -> float:
    """Full trainings' worth of compute until a network reaches the target."""
    first, pause, end = found
    paused: list[int] = []
    ended: set[int] = set()
    cost = 0.0
    for tried in range(1, MOST + 1):
        cost += FIRST_COST
        best = sorted(range(tried), key=lambda one: -first[one])[: tried // keep]
        for one in (one for one in best if one not in paused):
            paused.append(one)
            cost += PAUSED
            going = sorted(paused, key=lambda one: -pause[one])[: math.ceil(len(paused) / resume)]
            for other in (other for other in going if other not in ended):
                ended.add(other)
                cost += 1 - PAUSED
                if end[other] >= target:
                    return cost
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("--first", 0.80), ("--pause", 0.92), ("--end", 0.96)):
        parser.add_argument(name, type=float, default=value, help="correlation with the quality")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    random, like = np.random.default_rng(0), (options.first, options.pause, options.end)
    table: dict[str, dict[int, float]] = {}
    for count in TRAININGS:
        best = [scores(count, like, random)[2].max() for _ in range(2000)]
        target = float(np.median(best))
        drawn = [scores(MOST, like, random) for _ in range(options.runs)]
        for keep, resume in PAIRS:
            costs = [spent(found, target, keep=keep, resume=resume) for found in drawn]
            ratio = count / math.exp(float(np.mean(np.log(costs))))
            table.setdefault(f"1 in {keep}, 1 in {resume}", {})[count] = round(ratio, 2)
    if options.json:
        print(json.dumps({"correlations": like, "runs": options.runs, "table": table}))
        return
    print(f"{'shares':16}", *(f"N = {count:3}" for count in TRAININGS), sep="  ")
    for name, row in table.items():
        mark = "  (default)" if name == f"1 in {KEEP}, 1 in {RESUME}" else ""
        print(f"{name:16}", *(f"{row[count]:7.2f}" for count in TRAININGS), mark, sep="  ")


if __name__ == "__main__":
    main()
