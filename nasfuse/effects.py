"""Effects: what a choice does to a value, with intervals that hold and tests that count.

Ordinary least squares with standard errors that allow each value a variance of its own (HC2), and
Student's t with Bell and McCaffrey's degrees of freedom, which hold for few values as well (Imbens
& Kolesar 2016, Rev. Economics and Statistics 98, 701); pairs by the paired t test; several tests at
once by Holm's method (1979, Scand. J. Statistics 6, 65).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
_ZERO = 1e-8
_SHARE = 1e-6  # of a value in an estimate, below which it has none


class Effect(NamedTuple):
    """An estimate, the ends of its 95 % interval, and the p of the test that it is 0."""

    estimate: float
    low: float
    high: float
    p: float


def _effect(estimate: float, variance: float, freedom: float) -> Effect:
    from scipy.special import stdtr, stdtrit  # slow to import, and scipy.stats five times as slow

    error = math.sqrt(max(variance, 1e-30))
    reach = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    p = float(2 * stdtr(freedom, -abs(estimate) / error))
    return Effect(estimate, estimate - reach, estimate + reach, p)


@dataclass(frozen=True)
class Additive:
    """An additive model of values (n) by columns (n x k), which may be linearly dependent.

    `maker` (n x n) makes the residuals of values.
    """

    columns: Array
    inverse: Array  # Moore and Penrose's, k x n
    values: Array
    maker: Array

    @classmethod
    def fit(cls, columns: Array, values: Array) -> Additive:
        inverse = np.asarray(np.linalg.pinv(columns, rcond=1e-10))
        return cls(columns, inverse, values, np.eye(len(values)) - columns @ inverse)

    @property
    def freedom(self) -> int:
        return round(float(np.trace(self.maker)))

    def contrast(self, weights: Array) -> Effect | None:
        """What this weighted sum of coefficients is; None where the data do not determine it."""
        shares = np.asarray(weights @ self.inverse)
        if np.abs(shares @ self.columns - weights).max() > 1e-6:
            return None
        return _sandwich(shares, self.values, self.maker)

    def added(self, column: Array) -> Effect | None:
        """The coefficient that one more column would have; None where the others imply it."""
        rest = self.maker @ column
        square = float(rest @ rest)
        if square < _ZERO * float(column @ column):
            return None
        maker = self.maker - np.outer(rest, rest) / square
        return _sandwich(rest / square, self.values, maker)


def _sandwich(shares: Array, values: Array, maker: Array) -> Effect | None:
    """Of the estimate that is the sum of the values by their shares in it."""
    left = np.diag(maker)
    alone = left < _ZERO  # a value with a coefficient of its own says nothing of the scatter
    if np.abs(shares[alone]).max(initial=0.0) > _SHARE:  # and nobody knows by how much it is off
        return None
    scales = np.where(alone, 0.0, shares**2 / np.where(alone, 1.0, left))
    variance = float(scales @ (maker @ values) ** 2)
    spread = float(scales @ maker**2 @ scales)
    if spread <= 0:
        return None
    return _effect(float(shares @ values), variance, float(scales @ left) ** 2 / spread)


def paired(
    differences: Sequence[float], *, quantum: float = 0.0, beside: float = 0.0
) -> Effect | None:
    """The mean of differences by the paired t test; None of fewer than two.

    `quantum` is the step of the values that were subtracted: what their rounding hides is added to
    the variance, or two equal differences would be taken for a certainty. `beside` is a part of
    the mean's variance that all differences share, so that their scatter does not show it.
    """
    count = len(differences)
    if count < 2:
        return None
    variance = float(np.var(differences, ddof=1)) + quantum**2 / 6
    return _effect(float(np.mean(differences)), variance / count + beside, count - 1)


def to_show(effect: Effect, *, freedom: int, tests: int) -> float:
    """How large an effect of this scatter has to be to stand Holm's correction alone."""
    from scipy.special import stdtrit

    levels = (1 - ALPHA / 2, 1 - ALPHA / 2 / tests)
    usual, strict = (float(stdtrit(freedom, level)) for level in levels)
    return (effect.high - effect.low) / 2 * strict / usual


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for all being tested: where nothing is true, one is below 0.05 in 5 %."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted
