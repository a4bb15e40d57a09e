"""Paired differences of two algorithms, seed by seed."""

from __future__ import annotations

import numpy as np
from made_up import Array


def difference(values: Array, *, digits: int = 3) -> list[float]:
    """The mean and its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (4000, len(values))).mean(axis=1)
    found = [values.mean(), *np.quantile(drawn, [0.025, 0.975])]
    return [round(float(value), digits) for value in found]
