"""Surrogate: a Gaussian process from parameters and cost to a value, for a few hundred members.

Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.2 and 5.4. Only
numpy: so small a problem takes milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nasfuse.holes import Value

Array = NDArray[np.float64]
KEPT = 10_000  # values of parameters whose columns are not looked up again

ALONE = "alone"  # owns columns that are always 0
HALF = math.sqrt(0.5)  # two levels then differ by a squared distance of 1
SPREAD = 1.5  # of a weight's logarithm, a priori
NOISE = (-3.0, 1.5)  # the same of the noise's share of the variance: mean and spread
STEP = 0.3  # of the first step of a logarithm


class Member(NamedTuple):
    """A point of a conditional space: the parameters that apply, and an estimate of its cost."""

    params: Mapping[str, Value]
    cost: float


class Features(NamedTuple):
    """One row a member; a column's owner names the weight that scales it."""

    rows: Array
    owners: list[str]


class Entries(NamedTuple):
    """Some columns of a row, and what stands in them."""

    columns: tuple[int, ...]
    cells: tuple[float, ...]


class Encoder:
    """Members as rows, of which the kernel weighs squared distances; columns are only added.

    Of each parameter whether levels differ (1; against one that does not apply 1/2) and, where
    they are numbers, by how much. Of parameters with the same choices (the edges of a cell, the
    fusions of the stages) how often each level occurs. And the logarithm of the cost.
    """

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        self._ranges = ranges
        self._columns: dict[tuple[str, Value], int] = {}
        self._entries: dict[tuple[str, Value], Entries] = {}
        self._groups: dict[str, set[str]] = {}

    def encode(self, members: Sequence[Member]) -> Features:
        columns: list[int] = []
        cells: list[float] = []
        ends = [0]
        cost = self._column("cost", None)
        for member in members:
            columns.append(cost)
            cells.append(math.log2(max(member.cost, 1e-12)) / 2)
            for gene in member.params.items():
                found = self._entries.get(gene) or self._level(*gene)
                columns += found.columns
                cells += found.cells
            ends.append(len(columns))
        width = len(self._columns)
        rows = np.repeat(np.arange(len(members)), np.diff(ends))
        places = rows * width + np.array(columns, np.intp)
        flat = np.asarray(np.bincount(places, cells, len(members) * width), np.float64)
        sizes = [self._size(owner) for owner, _ in self._columns]
        scales = [0.0 if size == 1 else math.sqrt(1 / max(size, 1)) for size in sizes]
        named = zip(self._columns, sizes, strict=True)
        owners = [ALONE if size == 1 else owner for (owner, _), size in named]
        return Features(flat.reshape(-1, width) * scales, owners)

    def _level(self, name: str, value: Value) -> Entries:
        """The columns of a parameter's value, and what stands in them."""
        if len(self._entries) > KEPT:  # of a continuum there is no end
            self._entries.clear()
        range_ = self._ranges[name]
        position = _position(value, range_)
        found = {} if position is None else {self._column(f"order {name}", None): position}
        if isinstance(range_, CategoricalDistribution):
            group = f"count {re.sub('[0-9]+', '*', name)} {range_.choices}"
            self._groups.setdefault(group, set()).add(name)
            found |= {self._column(owner, value): HALF for owner in (f"level {name}", group)}
        else:
            found[self._column(f"level {name}", True)] = HALF
        self._entries[name, value] = entries = Entries(tuple(found), tuple(found.values()))
        return entries

    def _column(self, owner: str, level: Value) -> int:
        return self._columns.setdefault((owner, level), len(self._columns))

    def _size(self, owner: str) -> int:
        """Of a group: one change counts 1 / its size, and a group of one has nothing to count."""
        return len(self._groups.get(owner, ()))


def _position(value: Value, range_: BaseDistribution) -> float | None:
    """Where a number lies in its range, from 0 to 1; None for labels, which have no order."""
    if isinstance(range_, CategoricalDistribution):
        choices = range_.choices
        ordered = len(choices) > 2 and all(_is_number(choice) for choice in choices)
        return choices.index(value) / (len(choices) - 1) if ordered else None
    assert isinstance(range_, FloatDistribution | IntDistribution)
    assert isinstance(value, int | float)
    if range_.high == range_.low:
        return 0.0
    if range_.log:
        return math.log(value / range_.low) / math.log(range_.high / range_.low)
    return (value - range_.low) / (range_.high - range_.low)


def _is_number(choice: object) -> bool:
    return choice is None or isinstance(choice, int | float) or str(choice).isdigit()


@dataclass(frozen=True)
class Weights:
    """Logarithms: how much each owner's squared distance counts, and the noise's share."""

    owners: Mapping[str, float]
    noise: float = NOISE[0]

    def of(self, owners: Sequence[str]) -> Array:
        """One a name; what was not fitted has what it has a priori."""
        start = _prior(owners)
        return np.array([self.owners.get(o, s) for o, s in zip(owners, start, strict=True)])


def _prior(owners: Sequence[str]) -> Array:
    """A priori all parameters together, all groups, and the cost count about the same."""
    kinds = [owner.split()[0] for owner in owners]
    return np.array([math.log(1 / kinds.count(kind)) for kind in kinds])


def fit(features: Features, values: Array, start: Weights, *, steps: int) -> Weights:
    """The weights of the largest posterior density, climbed to by the signs of the gradient.

    Rprop: Riedmiller & Braun 1993.
    """
    names = sorted(set(features.owners))
    owner = np.array([names.index(name) for name in features.owners])
    prior = np.append(_prior(names), NOISE[0])
    spread = np.append(np.full(len(names), SPREAD), NOISE[1])
    point, step = np.append(start.of(names), start.noise), np.full(len(names) + 1, STEP)
    best, least, before = point, math.inf, np.zeros(len(point))
    for _ in range(steps):
        loss, slope = _loss(features.rows, owner, values, point)
        loss += float(np.sum(((point - prior) / spread) ** 2)) / 2
        slope = slope + (point - prior) / spread**2
        if loss < least:
            best, least = point, loss
        step = np.clip(step * np.where(slope * before < 0, 0.5, 1.2), 1e-3, 1.0)
        before, point = slope, point - step * np.sign(slope)
    return Weights(dict(zip(names, best[:-1].tolist(), strict=True)), float(best[-1]))


def _loss(rows: Array, owner: NDArray[np.intp], values: Array, point: Array) -> tuple[float, Array]:
    """Minus the logarithm of the marginal likelihood, the scale profiled out, and its gradient."""
    count = len(values)
    scaled, noise = rows * np.exp(point[:-1] / 2)[owner], math.exp(point[-1])
    smooth = _kernel(scaled, scaled)
    lower = np.linalg.cholesky(smooth + (noise + 1e-6) * np.eye(count))
    half = np.linalg.inv(lower)
    inverse = half.T @ half
    alpha = inverse @ values
    scale = max(float(values @ alpha) / count, 1e-12)
    loss = count / 2 * math.log(scale) + float(np.log(np.diag(lower)).sum())
    slope = (inverse - np.outer(alpha, alpha) / scale) / 2
    pull = -slope * smooth
    columns = 2 * (pull.sum(axis=1) @ scaled**2 - np.sum(scaled * (pull @ scaled), axis=0))
    summed = np.bincount(owner, columns, len(point) - 1)
    return loss, np.append(summed, noise * np.trace(slope))


def _kernel(left: Array, right: Array) -> Array:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2 * left @ right.T
    return np.asarray(np.exp(-np.maximum(squares, 0.0)))


class GaussianProcess:
    """What is expected of further rows, given observed ones.

    Rows after the last value are pending: taken as observed at what is expected of them, so that
    the mean stays and the deviation shrinks around them (the kriging believer of Ginsbourger, Le
    Riche & Carraro 2010).
    """

    def __init__(self, features: Features, values: Array, weights: Weights) -> None:
        count = len(values)
        names = sorted(set(features.owners))
        weight = dict(zip(names, np.exp(weights.of(names) / 2), strict=True))
        self._scales = np.array([weight[owner] for owner in features.owners])
        self._rows = features.rows * self._scales
        noise = (math.exp(weights.noise) + 1e-6) * np.eye(len(self._rows))
        lower = np.linalg.cholesky(_kernel(self._rows, self._rows) + noise)
        self._half = np.linalg.inv(lower)
        known = self._half[:count, :count]
        self._alpha = known.T @ (known @ values)
        self._scale = max(float(values @ self._alpha) / count, 1e-12)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, without the noise of an observation.

        Columns that came later are not compared: nothing known has those levels.
        """
        cross = _kernel(rows[:, : len(self._scales)] * self._scales, self._rows)
        left = 1.0 - np.sum((cross @ self._half.T) ** 2, axis=1)
        mean = cross[:, : len(self._alpha)] @ self._alpha
        return mean, np.sqrt(self._scale * np.maximum(left, 1e-9))
