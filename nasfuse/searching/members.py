"""Samplers: which parameters to ask for next, knowing parameters, costs and told values only.

Each is a sampler of Optuna, so Optuna's ask and tell is the one interface, and any other sampler
of Optuna's can take its place. With one direction they look for the best, with two (accuracy up,
cost down) for a front.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from nasfuse.holes import Choices, Trial, Value


class Asked(Trial, Protocol):
    """A trial that also draws floats whose logarithm is uniform."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


Genes = Mapping[str, Value]


@dataclass(frozen=True)
class Domain:
    """What there is to propose, and what a choice costs.

    `suggest` asks a trial for every parameter that applies. `cost` is a cheap estimate, infinite
    where a choice is not allowed. `share`, where there is one, names the parameter that sets a
    proposal's own cost. `members` lists all that is allowed where that is little of what could be
    asked for, so that drawing would seldom find it.
    """

    suggest: Callable[[Asked], object]
    cost: Callable[[Genes], float]
    share: str | None = None
    members: Sequence[Genes] = ()


class Replay:
    """A trial that answers what it was given where that is allowed, and draws the rest.

    Keeps its answers in `params`, and the range of every name in `ranges`, which may be shared.
    """

    def __init__(
        self, given: Genes, generator: random.Random, ranges: dict[str, BaseDistribution]
    ) -> None:
        self._given, self._random, self._ranges = given, generator, ranges
        self.params: dict[str, Value] = {}

    def suggest_categorical(self, name: str, choices: Choices) -> Any:
        if name not in self._ranges:
            self._ranges[name] = CategoricalDistribution(choices)
        given = name in self._given and self._given[name] in choices
        value = self._given[name] if given else self._random.choice(choices)
        self.params[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> Any:
        if name not in self._ranges:
            self._ranges[name] = IntDistribution(low, high, step=step)
        value = self._given.get(name)
        if not isinstance(value, int) or value not in range(low, high + 1, step):
            value = self._random.randrange(low, high + 1, step)
        self.params[name] = value
        return value

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> Any:
        if name not in self._ranges:
            self._ranges[name] = FloatDistribution(low, high, log=log)
        value = self._given.get(name)
        if not isinstance(value, int | float) or not low <= value <= high:
            start, end = (math.log(low), math.log(high)) if log else (low, high)
            value = self._random.uniform(start, end)
            value = min(high, max(low, math.exp(value))) if log else value
        self.params[name] = value
        return value


NEAR = 64  # listed members, of which the most similar one is a mutant
TRIES = 1000  # draws of a member that is allowed and new, before anything is taken


Key = frozenset[tuple[str, Value]]


class MemberSampler(BaseSampler):
    """Chooses all parameters of a trial at once; subclasses say which.

    What it knows is in the study; it keeps nothing but random numbers and what was worked out.
    """

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain, self.random = domain, random.Random(seed)
        self.ranges: dict[str, BaseDistribution] = {}
        self._keys: dict[int, Key] = {}
        self.asked: set[Key] = set()  # never to be proposed again, failed ones neither
        self._chosen: Genes = {}

    @abstractmethod
    def choose(self, trials: Sequence[FrozenTrial], *, directions: int) -> Genes:
        """The parameters of the next trial, given all that were asked for."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        trials = [t for t in study.get_trials(deepcopy=False) if t.params]
        for other in trials:
            if other.number not in self._keys:
                self._keys[other.number] = key(other.params)
                self.asked.add(self._keys[other.number])
                self.ranges.update(other.distributions)
        self._chosen = self.choose(trials, directions=len(study.directions))
        return {name: self.ranges[name] for name in self._chosen}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self._chosen)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """A parameter that was not chosen: only where `Domain.suggest` is not what is asked."""
        uniform = RandomSampler(self.random.randrange(2**31))
        return uniform.sample_independent(study, trial, param_name, param_distribution)

    def filled(self, given: Genes) -> Genes:
        """A member with these parameters where they apply, the rest drawn."""
        replay = Replay(given, self.random, self.ranges)
        self.domain.suggest(replay)
        return replay.params

    def drawn(self, given: Genes) -> Genes:
        """A random member."""
        if self.domain.members:
            return self._listed(self.random.choice(self.domain.members))
        return self.filled(given)

    def mutated(self, parent: Genes, *, genes: int, given: Genes) -> Genes:
        """A copy of which some parameters were drawn again, and what depends on them."""
        if self.domain.members:
            near = [self.random.choice(self.domain.members) for _ in range(NEAR)]
            return self._listed(min(near, key=lambda member: len(parent.items() - member.items())))
        names = [name for name in parent if name not in given]
        redrawn = set(self.random.sample(names, min(genes, len(names))))
        return self.filled({n: v for n, v in parent.items() if n not in redrawn} | dict(given))

    def _listed(self, member: Genes) -> Genes:
        return member if member.keys() <= self.ranges.keys() else self.filled(member)

    def allowed(self, member: Genes) -> bool:
        """Whether it fits, and was never asked for."""
        return key(member) not in self.asked and math.isfinite(self.domain.cost(member))

    def first(self, draw: Callable[[], Genes]) -> Genes:
        """The first that is allowed of a number of draws, else the last one."""
        for _ in range(TRIES):
            if self.allowed(member := draw()):
                break
        return member


def key(params: Genes) -> Key:
    """Equal for equal parameters."""
    return frozenset(params.items())
