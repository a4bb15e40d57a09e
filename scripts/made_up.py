"""Made-up problems, on which samplers' settings are chosen: tables, and a space's accuracies."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nasfuse.holes import Value

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Trained networks: encodings, accuracies that a search may see, what is reported, costs."""

    codes: Sequence[str]
    observed: Array  # networks x trainings, NaN where there was none
    report: Array
    cost: Array
    rows: dict[str, int] = field(init=False)
    choices: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", {code: row for row, code in enumerate(self.codes)})
        columns = zip(*self.codes, strict=True)
        object.__setattr__(self, "choices", [sorted(set(column)) for column in columns])


FAMILIES = ("additive", "pairwise", "counts", "widths", "cliffs", "paths", "basins", "cells")
SHAPES = ((5, 8), (6, 5), (6, 4), (7, 4), (8, 3), (10, 3), (8, 4))  # digits, choices
CELLS = ((6, 5), (6, 4), (6, 5), (10, 3))  # the same where digits are the edges of a cell


def synthetic(family: str, seed: int) -> Table:
    """A made-up table: effects of digits, pairs, counts or widths, cells, cliffs, cost, noise."""
    generator = np.random.default_rng([seed, FAMILIES.index(family)])
    shapes = CELLS if family == "cells" else SHAPES
    digits, choices = shapes[generator.integers(len(shapes))]
    codes = np.array(list(itertools.product(range(choices), repeat=digits)))
    cost = _costs(codes, family, generator)
    quality = _quality(codes, family, generator)
    quality = _normal(quality + generator.uniform(0, 0.8) * _normal(np.log(cost)))
    quality = _normal(-np.logaddexp(0, -1.2 * (quality - 0.5)))  # the best are alike
    accuracy = 85 + 4 * _normal(quality + 0.08 * generator.normal(size=len(codes)))
    if family in ("cliffs", "paths"):
        accuracy = _broken(codes, accuracy, generator)
    if family == "cells":
        alive = np.isfinite(_last_node(codes, np.zeros((digits, choices)), 1.0))
        accuracy = np.where(alive, accuracy, 10 + generator.exponential(2, len(codes)))
    noise = generator.uniform(0.05, 0.3) * (accuracy.max() - np.quantile(accuracy, 0.96))
    observed = accuracy[:, None] + noise * generator.normal(size=(len(codes), 3))
    return Table(["".join(map(str, code)) for code in codes], observed, accuracy, cost)


def _normal(values: Array) -> Array:
    return np.asarray((values - values.mean()) / values.std())


def _costs(codes: NDArray[np.int64], family: str, generator: np.random.Generator) -> Array:
    digits, choices = codes.shape[1], int(codes.max()) + 1
    weight = np.exp(generator.normal(0, 0.5, digits))
    each = generator.exponential(1, choices)
    if family == "cells":  # one operator costs as much as a whole cell of another
        each = np.zeros(choices)
        each[-2:] = 1, generator.uniform(digits - 1, digits + 4)
        return np.asarray(each[codes].sum(axis=1) + 2)
    if family == "widths":
        each = np.arange(1.0, choices + 1) ** generator.uniform(1, 2)
    return np.asarray((weight * each[codes]).sum(axis=1) + 0.1 * digits * each.mean())


def _quality(codes: NDArray[np.int64], family: str, generator: np.random.Generator) -> Array:
    digits, choices = codes.shape[1], int(codes.max()) + 1
    effects = generator.normal(size=(digits, choices))
    effects *= np.exp(generator.normal(0, 0.6, (digits, 1)))
    quality = _normal(effects[np.arange(digits), codes].sum(axis=1))
    if family == "widths":  # diminishing returns, and the narrowest holds back
        weight, power = np.exp(generator.normal(0, 0.7, digits)), generator.uniform(0.3, 1.5)
        gain = _normal(-(weight * (codes + 1.0) ** -power).sum(axis=1))
        narrow = (np.log(codes + 1.0) + generator.normal(0, 0.3, digits)).min(axis=1)
        return _normal(gain + 0.5 * _normal(narrow))
    if family == "counts":
        counts = (codes[:, :, None] == np.arange(choices)).mean(axis=1)
        pairs = np.einsum("nk,kl,nl->n", counts, generator.normal(size=(choices, choices)), counts)
        alone = np.sqrt(counts) @ generator.normal(size=choices)
        quality = _normal(_normal(alone) + 0.7 * _normal(pairs) + 0.5 * quality)
    if family == "additive":
        return quality
    if family == "cells":
        return _normal(_cell(codes, generator) + 0.1 * quality)
    if family == "basins":  # good in one of two ways, of which the better is rare
        other = _normal(
            generator.normal(size=(digits, choices))[np.arange(digits), codes].sum(axis=1)
        )
        return _normal(np.maximum(quality, 1.5 * other - 1.5))
    joint = np.zeros(len(codes))
    for _ in range(2 * digits if family == "paths" else digits):
        one, other = generator.choice(digits, 2, replace=False)
        joint += generator.normal(size=(choices, choices))[codes[:, one], codes[:, other]]
    return _normal(quality + (0.6 if family == "pairwise" else 0.35) * _normal(joint))


def _cell(codes: NDArray[np.int64], generator: np.random.Generator) -> Array:
    """Digits are operators between any two nodes: 0 cuts, 1 skips, the last ones help the most."""
    digits, choices = codes.shape[1], int(codes.max()) + 1
    gain = np.sort(generator.uniform(-0.4, 1.0, choices))
    gain[:2] = (0.0, 0.0) if choices > 3 else (0.0, gain[1])
    gain[-1] += 0.5
    place = np.exp(generator.normal(0, 0.25, (digits, 1)))
    level = _last_node(codes, place * gain, generator.uniform(0.2, 0.8))
    return _normal(np.where(np.isfinite(level), level, level[np.isfinite(level)].min()))


def _last_node(codes: NDArray[np.int64], gain: Array, warmth: float) -> Array:
    """What reaches it; a node is about as good as its best input, minus infinity without any."""
    digits, level = codes.shape[1], [np.zeros(len(codes))]
    edges = iter(range(digits))
    while len(level) * (len(level) - 1) < 2 * digits:
        inputs = [
            np.where(codes[:, edge] > 0, before + gain[edge, codes[:, edge]], -np.inf)
            for before, edge in zip(level, edges, strict=False)
        ]
        level.append(warmth * np.logaddexp.reduce(np.array(inputs) / warmth))
    return level[-1]


def _broken(codes: NDArray[np.int64], accuracy: Array, generator: np.random.Generator) -> Array:
    """Chance level where one choice cuts every one of a few paths."""
    digits, cut = codes.shape[1], generator.integers(int(codes.max()) + 1)
    alive = np.zeros(len(codes), bool)
    for _ in range(generator.integers(2, 4)):
        path = generator.choice(digits, generator.integers(1, 4), replace=False)
        alive |= (codes[:, path] != cut).all(axis=1)
    return np.where(alive, accuracy, 10 + generator.exponential(2, len(codes)))


@dataclass(frozen=True)
class Accuracies:
    """A made-up accuracy of any parameters: more cost helps, and each choice has its effect.

    Effects are drawn by name, so that they need no list of the names.
    """

    seed: int

    def true(self, params: Mapping[str, Value], share: float) -> float:
        effects = [self._effect(name, value) for name, value in params.items()]
        joint = [
            0.5 * self._draw(f"{one} {a} {other} {b}")
            for (one, a), (other, b) in itertools.pairwise(params.items())
            if not isinstance(a, float) and not isinstance(b, float)
        ]
        quality = (sum(effects) + sum(joint)) / math.sqrt(len(params))
        return 0.85 - 0.12 * float(share**-0.2) + 0.02 * math.tanh(quality / 2)

    def observed(
        self, params: Mapping[str, Value], share: float, generator: random.Random
    ) -> float:
        return self.true(params, share) + generator.gauss(0, 0.002)

    def _effect(self, name: str, value: Value) -> float:
        weight = math.exp(0.6 * self._draw(name))
        if isinstance(value, float):
            return weight * self._draw(f"{name} slope") * (value - 1.15) * 4
        return weight * self._draw(f"{name} {value}")

    def _draw(self, text: str) -> float:
        return random.Random(f"{self.seed} {text}").gauss(0, 1)
