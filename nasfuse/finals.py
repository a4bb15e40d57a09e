"""Finals: the few best networks are trained again, and a winner is named only where that shows one.

One training's accuracy scatters between seeds by as much as fusions differ, and the most accurate
of many single trainings was lucky. So the first training of a finalist, which chose it, does not
count; its repeats with fresh seeds do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, pvariance, stdev

from nasfuse.results import Result, complete

FINALISTS = 3  # of the most accurate networks; the best hand-made one comes on top
REPEATS = 3
CONFIDENCE = 0.95


def finalists(results: Sequence[Result], top: int) -> list[Result]:
    """The most accurate networks of the top rung, and the most accurate hand-made one."""
    order = sorted(complete(results, top), key=lambda r: (-r.point.accuracy, r.cost, r.number))
    references = [result for result in order if result.is_reference]
    return order[:FINALISTS] + [r for r in references[:1] if r not in order[:FINALISTS]]


@dataclass(frozen=True)
class Finalist:
    """A network with the validation accuracies of its repeats."""

    result: Result
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """Standard deviation between seeds."""
        return stdev(self.accuracies)


@dataclass(frozen=True)
class Verdict:
    """What the finals showed: `finalists`, the most accurate first.

    `reach` times the root of the sum of two networks' 1 / repeats is half the interval of their
    difference; all intervals hold at once with a probability of CONFIDENCE.
    """

    finalists: tuple[Finalist, ...]
    reach: float

    def margin(self, one: Finalist, other: Finalist) -> tuple[float, float, float]:
        """By how much the one is more accurate: lower end, difference, upper end."""
        if one is other:
            return 0.0, 0.0, 0.0
        counts = (len(one.accuracies), len(other.accuracies))
        middle = one.mean - other.mean
        width = self.reach * math.sqrt(sum(1 / count for count in counts))
        return middle - width, middle, middle + width

    @property
    def margins(self) -> list[tuple[float, float, float]]:
        """By how much the most accurate one is more accurate than each."""
        return [self.margin(self.finalists[0], finalist) for finalist in self.finalists]

    @property
    def baseline(self) -> Finalist | None:
        """The most accurate hand-made network."""
        return next((f for f in self.finalists if f.result.is_reference), None)

    @property
    def tied(self) -> list[Finalist]:
        """Those that cannot be told from the most accurate one, itself among them."""
        pairs = zip(self.finalists, self.margins, strict=True)
        return [finalist for finalist, (low, _, _) in pairs if low <= 0]

    @property
    def clear(self) -> bool:
        """Whether the most accurate one is shown to be more accurate than all others."""
        return len(self.tied) == 1

    @property
    def best(self) -> Finalist:
        """The one to take: the winner, or the cheapest of those that are tied with it."""
        return min(self.tied, key=lambda f: (f.result.cost, -f.mean))


def verdict(results: Sequence[Result], top: int, *, images: int) -> Verdict | None:
    """What the repeats show, by Tukey's test for all pairs (Tukey-Kramer); None without repeats.

    Networks with fewer than two repeats are left out. Accuracies are on so many `images`.
    """
    repeats: dict[str, list[float]] = {}
    for result in results:
        if result.status == "complete" and result.rung == top and result.repeat:
            repeats.setdefault(result.key, []).append(result.point.accuracy)
    found = [
        Finalist(result, tuple(repeats[result.key]))
        for result in complete(results, top)
        if len(repeats.get(result.key, ())) > 1
    ]
    found.sort(key=lambda f: (-f.mean, f.result.cost))
    return Verdict(tuple(found), _reach(found, 1 / images)) if len(found) > 1 else None


def _reach(found: Sequence[Finalist], quantum: float) -> float:
    """With one deviation for all: a few repeats of each show too little.

    What the step of the accuracies hides is added: equal repeats would be taken for a certainty.
    """
    counts = [len(finalist.accuracies) for finalist in found]
    freedom = sum(counts) - len(found)
    squares = sum(n * pvariance(f.accuracies) for n, f in zip(counts, found, strict=True))
    variance = squares / freedom + quantum**2 / 12
    return _studentized_range(len(found), freedom) * math.sqrt(variance / 2)


@cache
def _studentized_range(groups: int, freedom: int) -> float:
    from scipy.stats import studentized_range  # slow to import

    return float(studentized_range.ppf(CONFIDENCE, groups, freedom))
