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

from nasfuse.agreement import Judged
from nasfuse.results import Result, complete, judged

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
    """A network and its repeats, judged on validation images."""

    result: Result
    judged: Judged

    @property
    def accuracies(self) -> tuple[float, ...]:
        return self.judged.accuracies

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

    `variance` is that of one training's accuracy, between seeds. The deviation of a difference is
    `quantile` times, over the root of 2, half its interval; all intervals hold at once with a
    probability of CONFIDENCE.
    """

    finalists: tuple[Finalist, ...]
    variance: float
    quantile: float

    def margin(self, one: Finalist, other: Finalist) -> tuple[float, float, float]:
        """By how much the one is more accurate: lower end, difference, upper end.

        With other seeds and on other images: both add to the variance of the difference.
        """
        if one is other:
            return 0.0, 0.0, 0.0
        seeds = sum(self.variance / len(finalist.accuracies) for finalist in (one, other))
        middle, images = one.mean - other.mean, one.judged.scatter(other.judged)
        width = self.quantile * math.sqrt((seeds + images) / 2)
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

    Networks with fewer than two repeats are left out. Accuracies are on so many `images`, and what
    those leave to chance is added to the test's variance.
    """
    repeats: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "complete" and result.rung == top and result.repeat:
            repeats.setdefault(result.key, []).append(result)
    found = [
        Finalist(result, judged(repeats[result.key], images))
        for result in complete(results, top)
        if len(repeats.get(result.key, ())) > 1
    ]
    found.sort(key=lambda f: (-f.mean, f.result.cost))
    if len(found) < 2:
        return None
    freedom = sum(len(finalist.accuracies) - 1 for finalist in found)
    variance = _variance(found, freedom, quantum=1 / images)
    return Verdict(tuple(found), variance, _studentized_range(len(found), freedom))


def _variance(found: Sequence[Finalist], freedom: int, *, quantum: float) -> float:
    """One for all networks: a few repeats of each show too little.

    What the step of the accuracies hides is added: equal repeats would be taken for a certainty.
    """
    squares = sum(len(f.accuracies) * pvariance(f.accuracies) for f in found)
    return squares / freedom + quantum**2 / 12


@cache
def _studentized_range(groups: int, freedom: int) -> float:
    from scipy.stats import studentized_range  # slow to import

    return float(studentized_range.ppf(CONFIDENCE, groups, freedom))
