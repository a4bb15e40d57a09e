"""Rungs: which trained networks are worth training longer.

Asynchronous successive halving (Li et al. 2020, ASHA, arXiv:1810.05934) inside bands of equal
cost: a network is compared only with networks that cost between half as much and twice as much,
so that small ones are not dropped for being small. The first rung has a complete short schedule,
the others are pauses of one long run, judged by averaged weights with batch norm measured anew,
for weights in the middle of a long schedule rank networks badly. Both are judged by the calibrated
loss on validation images (`promise`); the training loss was measured to rank worse where blocks
differ (scripts/audit_rungs.py).
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from itertools import islice

from nasfuse.recipe import Recipe
from nasfuse.results import Result, Step
from nasfuse.searching.promise import promise

KEEP = 8  # after a complete run the best one in KEEP goes on to the next rung
RESUME = 3  # of paused runs the best one in RESUME goes on, the first of a band at once


def band(cost: float, most: float) -> int:
    """How many times a cost has to be doubled to pass the most: 0 for its upper half."""
    return math.floor(math.log2(most / cost))


def standing(result: Result, recipe: Recipe) -> tuple[float, float, float, int]:
    """What results are ordered by: promise, then, where it is equal, the lower loss."""
    return (-promise(result, recipe), result.loss or 0.0, result.macs, result.number)


class Bands:
    """Complete results by rung and band of cost, the most promising first in each.

    They are put in as they come, so that a decision takes no longer after thousands of them.
    """

    def __init__(self, recipe: Recipe, budget: int) -> None:
        self.recipe, self.budget = recipe, budget
        self.grouped: dict[int, dict[int, list[Result]]] = {}
        self.references: dict[int, list[Result]] = {}
        self._taken = 0

    def take(self, results: Sequence[Result]) -> None:
        """Put in what a list of results has more than at the last call."""
        for result in results[self._taken :]:
            if result.status == "complete" and not result.repeat:
                groups = self.grouped.setdefault(result.rung, {})
                # where the front is not one of MACs, anything can be the most
                most = self.budget if result.objective == "macs" else 1.0
                group = groups.setdefault(band(result.cost, most), [])
                insort(group, result, key=lambda one: standing(one, self.recipe))
                if result.is_reference:
                    self.references.setdefault(result.rung, []).append(result)
        self._taken = len(results)


class Ladder:
    """Decides on promotions from what has been trained and what is being trained."""

    def __init__(self, recipe: Recipe, *, budget: int) -> None:
        self.recipe, self.bands = recipe, Bands(recipe, budget)

    def promotable(
        self, results: Sequence[Result], started: set[Step], *, least: int
    ) -> list[Result]:
        """Who should go up one rung, the highest rung first.

        `results` are those of the call before and what came since; `started` holds everything
        trained or in training. Of each band a share goes on, and at least the `least` best, which
        is for the end of a search.
        """
        self.bands.take(results)
        return [
            result
            for rung in reversed(range(self.recipe.top))
            for group in self.bands.grouped.get(rung, {}).values()
            for result in group[: max(self.kept(rung, len(group)), least)]
            if Step(result.key, rung + 1) not in started
        ]

    def following(self, results: Sequence[Result], started: set[Step]) -> list[Result]:
        """The best one of each band and rung that has not gone up a rung."""
        self.bands.take(results)
        found = []
        for rung in range(self.recipe.top):
            for group in self.bands.grouped.get(rung, {}).values():
                left = (one for one in group if Step(one.key, rung + 1) not in started)
                found += list(islice(left, 1))
        return found

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
        """The most promising hand-made network of each rung, where it is to go up still."""
        self.bands.take(results)
        best = []
        for rung in range(self.recipe.top):
            references = self.bands.references.get(rung, [])
            first = min(references, key=lambda r: standing(r, self.recipe), default=None)
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
