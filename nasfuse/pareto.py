"""Which points no other point beats, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One network in the plane of the search: accuracy to be high, cost to be low."""

    accuracy: float
    cost: float


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in both and better in one."""
    return one != other and one.accuracy >= other.accuracy and one.cost <= other.cost


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that none dominates, cheapest first; of equal points the first."""
    order = sorted(range(len(points)), key=lambda i: (points[i].cost, -points[i].accuracy, i))
    kept: list[int] = []
    for index in order:
        if not kept or points[index].accuracy > points[kept[-1]].accuracy:
            kept.append(index)
    return kept


def hypervolume(points: Sequence[Point], *, budget: float) -> float:
    """Share of the box [0, budget] x [0, 1] that the points dominate (Zitzler & Thiele 1999)."""
    area, best = 0.0, 0.0
    for index in front(points):
        accuracy, cost = points[index]
        if cost < budget and accuracy > best:
            area += (accuracy - best) * (budget - cost)
            best = accuracy
    return area / budget
