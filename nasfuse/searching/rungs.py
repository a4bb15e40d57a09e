"""Rungs: which trained networks are worth training longer.

Asynchronous successive halving (Li et al. 2020, ASHA, arXiv:1810.05934) inside bands of equal
cost: a network is compared only with networks that cost between half as much and twice as much,
so that small ones are not dropped for being small. Each rung has its own complete schedule;
accuracies in the middle of a long one would rank networks badly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nasfuse.recipe import Recipe
from nasfuse.results import Result, complete

KEEP = 4  # one in KEEP goes on to the next rung


def band(macs: int, budget: int) -> int:
    """How many times the cost has to be doubled to pass the budget: 0 for its upper half."""
    return math.floor(math.log2(budget / macs))


def bands(results: Iterable[Result], budget: int) -> dict[int, list[Result]]:
    """Results by band of cost, the most accurate first in each."""
    grouped: dict[int, list[Result]] = {}
    for result in results:
        grouped.setdefault(band(result.macs, budget), []).append(result)
    for group in grouped.values():
        group.sort(key=lambda r: (-r.point.accuracy, r.macs, r.number))
    return grouped


class Ladder:
    """Decides on promotions from what has been trained and what is being trained."""

    def __init__(self, recipe: Recipe, *, budget: int) -> None:
        self.recipe, self.budget = recipe, budget

    @property
    def top(self) -> int:
        return len(self.recipe.rungs) - 1

    def promotable(
        self, results: Sequence[Result], started: set[tuple[str, int]], *, least: int
    ) -> list[Result]:
        """Who should go up one rung, the highest rung first.

        `started` holds (key, rung) of everything trained or in training. Of each band one network
        in KEEP goes on, and at least the `least` best, which is for the end of a search.
        """
        return [
            result
            for rung in reversed(range(self.top))
            for group in bands(complete(results, rung), self.budget).values()
            for result in group[: max(len(group) // KEEP, least)]
            if (result.key, rung + 1) not in started
        ]

    def best_reference(
        self, results: Sequence[Result], started: set[tuple[str, int]]
    ) -> list[Result]:
        """The most accurate hand-made network of each rung, where it is to go up still."""
        best = []
        for rung in range(self.top):
            references = [r for r in complete(results, rung) if r.is_reference]
            first = max(references, key=lambda r: (r.point.accuracy, -r.macs), default=None)
            if first is not None and (first.key, rung + 1) not in started:
                best.append(first)
        return best

    def seconds(self, result: Result) -> float:
        """About how long a network takes on the next rung, from its time on this one."""
        here, there = self.recipe.rungs[result.rung], self.recipe.rungs[result.rung + 1]
        return result.seconds * there.passes / here.passes
