"""Rungs: which trained networks are worth training longer.

Asynchronous successive halving (Li et al. 2020, ASHA, arXiv:1810.05934) inside bands of equal
cost: a network is compared only with networks that cost between half as much and twice as much,
so that small ones are not dropped for being small. The first rung has a complete short schedule,
the others are pauses of one long run. The accuracy of weights in the middle of a long schedule
ranks networks badly, so a pause is judged by averaged weights with batch norm measured anew; the
training loss was measured to rank worse than that where blocks differ (scripts/audit_rungs.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nasfuse.recipe import Recipe
from nasfuse.results import Result, Step, complete

KEEP = 8  # after a complete run the best one in KEEP goes on to the next rung
RESUME = 3  # of paused runs the best one in RESUME goes on, the first of a band at once


def band(macs: int, budget: int) -> int:
    """How many times the cost has to be doubled to pass the budget: 0 for its upper half."""
    return math.floor(math.log2(budget / macs))


def bands(results: Iterable[Result], budget: int) -> dict[int, list[Result]]:
    """Results of one rung by band of cost, the most promising first in each."""
    grouped: dict[int, list[Result]] = {}
    for result in results:
        grouped.setdefault(band(result.macs, budget), []).append(result)
    return {number: ranked(group) for number, group in grouped.items()}


def ranked(group: Sequence[Result]) -> list[Result]:
    """The most accurate first; of equally accurate ones that with the lower loss."""
    return sorted(group, key=lambda r: (-r.point.accuracy, r.loss or 0.0, r.macs, r.number))


class Ladder:
    """Decides on promotions from what has been trained and what is being trained."""

    def __init__(self, recipe: Recipe, *, budget: int) -> None:
        self.recipe, self.budget = recipe, budget

    def promotable(
        self, results: Sequence[Result], started: set[Step], *, least: int
    ) -> list[Result]:
        """Who should go up one rung, the highest rung first.

        `started` holds everything trained or in training. Of each band a share goes on, and at
        least the `least` best, which is for the end of a search.
        """
        return [
            result
            for rung in reversed(range(self.recipe.top))
            for group in bands(complete(results, rung), self.budget).values()
            for result in group[: max(self.kept(rung, len(group)), least)]
            if Step(result.key, rung + 1) not in started
        ]

    def kept(self, rung: int, count: int) -> int:
        """How many of so many networks that were judged on this rung of a band go up.

        A short run costs little beside what follows, so few of many are taken; what a pause costs
        is lost where it is not resumed. The shares are those that reached a target soonest in a
        simulation with the measured rank correlations (scripts/simulate_rungs.py).
        """
        paused = self.recipe.rungs[rung + 1].continues(self.recipe.rungs[rung])
        return math.ceil(count / RESUME) if paused else count // KEEP

    @property
    def shares(self) -> list[float]:
        """The share of all networks that each rung trains, once there are many."""
        many = KEEP * RESUME * 1000
        shares = [1.0]
        for rung in range(self.recipe.top):
            shares.append(shares[-1] * self.kept(rung, many) / many)
        return shares

    def best_reference(self, results: Sequence[Result], started: set[Step]) -> list[Result]:
        """The most accurate hand-made network of each rung, where it is to go up still."""
        best = []
        for rung in range(self.recipe.top):
            references = [r for r in complete(results, rung) if r.is_reference]
            first = max(references, key=lambda r: (r.point.accuracy, -r.macs), default=None)
            if first is not None and Step(first.key, rung + 1) not in started:
                best.append(first)
        return best

    def left(self, result: Result) -> float:
        """Passes over the training set that a network has yet to make to the top."""
        return sum(self.recipe.work(r) for r in range(result.rung + 1, self.recipe.top + 1))

    def seconds(self, result: Result) -> float:
        """About how long a network takes to the top, from its time on this rung."""
        return result.seconds * self.left(result) / self.recipe.work(result.rung)

    def seconds_again(self, result: Result) -> float:
        """About how long another full training of a network takes."""
        recipe = self.recipe
        return result.seconds * recipe.rungs[recipe.top].passes / recipe.work(result.rung)
