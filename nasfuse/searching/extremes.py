"""Extremes: the smallest and largest networks of a space, and limits that none of them can meet."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nasfuse.costs import MOST, Cost, show_macs
from nasfuse.errors import BudgetError, DocumentError
from nasfuse.holes import Value
from nasfuse.network import cost
from nasfuse.reach import Reach
from nasfuse.scaling import Budget, fit_to_budget, smallest
from nasfuse.searching.members import Genes, Replay
from nasfuse.space import Candidate, SearchSpace

SAMPLES = 64  # members of a space that are asked what they can be scaled to


Ranges = dict[str, BaseDistribution]


class Member(NamedTuple):
    """A member of a space, with its parameters and what it costs at its smallest."""

    candidate: Candidate
    params: Mapping[str, Value]
    cost: Cost


def reachable(space: SearchSpace) -> Reach:
    """What budgets can be met and used up, by members at their smallest and a few at their largest.

    A few are enough: the largest ones are far beyond what anybody trains.
    """
    drawn, largest = list(_drawn(space, {})), []
    for candidate, *_ in drawn[::16]:
        fitted = fit_to_budget(candidate.architecture, candidate.scaling, MOST)
        largest.append(cost(fitted).larger)
    least = _least(space, lambda price: price.larger).larger
    return Reach(least, max(largest), tuple(member.cost.larger for member in drawn))


def check_budget(space: SearchSpace, budget: int, max_params: int | None = None) -> None:
    """Refuse limits that no network of the space can meet, before anything starts.

    Raises:
        BudgetError: with the smallest budget that can be met.
    """
    limits = Budget(budget, max_params)
    if any(limits.used(member.cost) <= 1 for member in _drawn(space, {})):
        return
    reachable(space).require(budget, space.name)
    if max_params is None:
        return
    found = _least(space, lambda price: (max(budget, price.larger), price.params))
    if found.params > max_params:
        raise BudgetError(
            f"no network of the space '{space.name}' has as few as {max_params:,} parameters",
            where="--max-params",
            why=f"within {show_macs(budget)} MACs, the smallest one found has {found.params:,}",
            fix=f"--max-params {found.params}",
            needed=budget,
        )


def _drawn(space: SearchSpace, ranges: Ranges) -> Iterator[Member]:
    drawn = (_member(space, {}, random.Random(seed), ranges) for seed in range(SAMPLES))
    return (member for member in drawn if member)


def _member(
    space: SearchSpace, given: Genes, generator: random.Random, ranges: Ranges
) -> Member | None:
    """None where what is given makes no network, as some combinations of a space may."""
    trial = Replay(given, generator, ranges)
    try:
        candidate = space.suggest(trial)
    except DocumentError:
        return None
    least = smallest(candidate.architecture, candidate.scaling)
    return Member(candidate, trial.params, cost(least))


def _least(space: SearchSpace, size: Callable[[Cost], Any]) -> Cost:
    """What the smallest network found costs: the smallest one drawn, improved hole by hole.

    Each hole is tried at its other choices, or the ends of its range, until none helps.
    """
    ranges: Ranges = {}
    generator, best = random.Random(0), min(_drawn(space, ranges), key=lambda m: size(m.cost))
    improved = True
    while improved:
        improved = False
        for name in best.params:
            for option in _options(ranges[name]):
                member = _member(space, {**best.params, name: option}, generator, ranges)
                if member and size(member.cost) < size(best.cost):
                    best, improved = member, True
    return best.cost


def _options(values: BaseDistribution) -> tuple[Value, ...]:
    if isinstance(values, CategoricalDistribution):
        return values.choices
    assert isinstance(values, IntDistribution | FloatDistribution)
    return (values.low, values.high)
