"""The default sampler: candidates are mutants and random members, and a surrogate chooses.

Expected improvement (Jones, Schonlau & Welch 1998) sought among mutants of the best, as BANANAS
does it (White et al. 2021, arXiv:1910.11858), with a Gaussian process for its ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from nasfuse.searching.members import Domain, Genes, Key, MemberSampler, key
from nasfuse.searching.surrogate import (
    Array,
    Encoder,
    Features,
    GaussianProcess,
    Member,
    Weights,
    fit,
)

# chosen on the made-up tables of scripts/bench_search.py --synthetic
STARTUP = 10  # told values before the surrogate is asked
DRAWN = 3  # members for each of those, of which the dearest is taken where the cost is free
FULL = 0.25  # of the proposals for a front use all of the budget
SLACK = 1.05  # a member that costs so much more than a proposal is still compared with it
PARENTS = 10  # of mutants: the best told, then those of the largest expected improvement
MUTANTS = (100, 40, 40)  # of each round
RANDOM, RENEWED = 100, 15  # random members among the candidates; how many are new each time
OBSERVED = 200  # members that the surrogate sees: the best, the latest, some others
FITTED = 150  # members that its weights are fitted to
GROWTH = 1.1  # times the members of the last fit, before weights are fitted again
STEPS = (40, 12)  # of the first fit and of later ones
TARGET = 0.5  # the smaller, the more do differences between the best count
MARGIN = 0.5  # standard deviations of values by which the best is to be improved
STALE, FAR = 8, 2.0  # told values without a better one, and the margin of each second one then
WORST = 3.0  # times the median regret: what is worse is not told apart


class Known(NamedTuple):
    """What the surrogate sees: told members with their values, and after them pending ones."""

    members: list[Member]
    values: Array


class GuidedSampler(MemberSampler):
    """Of mutants of the best and random members the one of the largest expected improvement.

    For a front, how much a proposal may cost is drawn first: all of the budget, or less. Then
    it is compared with members of similar or lower cost, as it was told.
    """

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._encoder = Encoder(self.ranges)
        self._weights, self._fitted = Weights({}), 0
        self._random: list[Genes] = []
        self._unit = 1.0  # what is told for each unit of the domain's estimate of a cost

    def choose(self, trials: Sequence[FrozenTrial], *, directions: int) -> Genes:
        told = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        front = directions > 1
        if len(told) < STARTUP:
            return self._first(front=front)
        margin = MARGIN if front else _margin(told)
        told = self._some(told, front=front)
        if front:
            self._unit = _unit(told, self.domain)
        members = [Member(t.params, t.values[1]) if front else self._member(t.params) for t in told]
        values = np.array([trial.values[0] for trial in told])
        costs = np.array([member.cost for member in members])
        values = beside_trend(values, costs) if front else transformed(values)
        members += [self._member(t.params) for t in trials if t.state == TrialState.RUNNING]
        given, level = self._target(members, front=front)
        best = self._best(Known(members, values), given, level, margin=margin)
        return best or self.first(lambda: self.drawn(given))

    def _first(self, *, front: bool) -> Genes:
        """A random member; where no front is looked for, a dear one, which tends to be better.

        Before anything was trained cost is as good a guess of accuracy as others (White et al.
        2022, https://iclr-blog-track.github.io/2022/03/25/zero-cost-proxies).
        """
        given, _ = self._target([], front=front)
        drawn = [self.first(lambda: self.drawn(given)) for _ in range(1 if front else DRAWN)]
        return max(drawn, key=lambda member: (self.allowed(member), self.domain.cost(member)))

    def _member(self, params: Genes) -> Member:
        return Member(params, self.domain.cost(params) * self._unit)

    def _target(self, members: Sequence[Member], *, front: bool) -> tuple[Genes, float]:
        """What sets a proposal's cost where there is such a parameter, and that cost."""
        if not front:
            return {}, math.inf
        whole, part = self.random.random() < FULL, self.random.random()
        if self.domain.share is None:
            costs = [member.cost for member in members] or [math.inf]
            return {}, max(costs) if whole else min(costs) * (max(costs) / min(costs)) ** part
        if self.domain.share not in self.ranges:
            self.filled({})  # the parameters' ranges are not known before they are asked for
        range_ = self.ranges[self.domain.share]
        assert isinstance(range_, FloatDistribution)
        share = range_.high if whole else range_.low * (range_.high / range_.low) ** part
        given = {self.domain.share: min(range_.high, max(range_.low, share))}
        return given, self.domain.cost(given) * self._unit

    def _best(self, known: Known, given: Genes, level: float, *, margin: float) -> Genes | None:
        """The candidate of the largest expected improvement, sought in rounds of mutation."""
        random = self._renewed(given)
        self._encoder.encode(random)  # so that the columns of all levels are known
        features = self._encoder.encode(known.members)
        self._refit(features, known.values)
        process = GaussianProcess(features, known.values, self._weights)
        near = _comparable(known, level * SLACK)
        means, _ = process.predict(features.rows[near])
        near = [near[i] for i in np.argsort(-known.values[near], kind="stable")]
        parents = [known.members[index].params for index in near[:PARENTS]]
        best: list[tuple[float, Member]] = []
        fresh = [*random, *self._mutants(parents, given, MUTANTS[0])]
        for mutants in (*MUTANTS[1:], 0):
            fresh = [member for member in fresh if self._fits(member, level)]
            if fresh:
                mean, deviation = process.predict(self._encoder.encode(fresh).rows)
                scores = log_improvement(mean, deviation, float(means.max()) + margin)
                best += zip(scores.tolist(), fresh, strict=True)
                best.sort(key=lambda pair: -pair[0])
                best = best[:PARENTS]
            fresh = self._mutants([member.params for _, member in best], given, mutants)
        return best[0][1].params if best else None

    def _fits(self, member: Member, level: float) -> bool:
        return member.cost <= level * SLACK and self.allowed(member.params)

    def _renewed(self, given: Genes) -> list[Member]:
        """Random members, most of them those of the last time, for drawing takes time."""
        wanted = RENEWED if self._random else RANDOM
        drawn = [self.drawn(given) for _ in range(wanted)]
        self._random = [*self._random, *drawn][-RANDOM:]
        if self.domain.members:
            return [self._member(params) for params in self._random]
        return [self._member({**params, **given}) for params in self._random]

    def _mutants(self, parents: Sequence[Genes], given: Genes, count: int) -> list[Member]:
        """Of one or two genes, each once."""
        found: dict[Key, Member] = {}
        for _ in range(count if parents else 0):
            parent, genes = self.random.choice(parents), self.random.choice((1, 1, 2))
            params = self.mutated(parent, genes=genes, given=given)
            found[key(params)] = self._member(params)
        return list(found.values())

    def _refit(self, features: Features, values: Array) -> None:
        """Fit the weights again once there is a tenth more to fit them to."""
        count = len(values)
        if count < GROWTH * self._fitted and not (count == OBSERVED > self._fitted):
            return
        few = np.array(sorted(self.random.sample(range(count), min(count, FITTED))))
        steps = STEPS[1] if self._fitted else STEPS[0]
        part = Features(features.rows[few], features.owners)
        self._weights = fit(part, values[few], self._weights, steps=steps)
        self._fitted = count

    def _some(self, told: Sequence[FrozenTrial], *, front: bool) -> list[FrozenTrial]:
        """At most so many that the surrogate stays fast: the best, the latest, and others.

        The best for their cost, where a front is looked for.
        """
        if len(told) <= OBSERVED:
            return list(told)
        part, values = OBSERVED // 3, np.array([trial.values for trial in told])
        merits = beside_trend(values[:, 0], values[:, 1]) if front else values[:, 0]
        best = [told[place] for place in np.argsort(-merits, kind="stable")[:part]]
        chosen = {trial.number: trial for trial in (*best, *told[-part:])}
        others = [trial for trial in told if trial.number not in chosen]
        for trial in self.random.sample(others, OBSERVED - len(chosen)):
            chosen[trial.number] = trial
        return [chosen[number] for number in sorted(chosen)]


def _unit(told: Sequence[FrozenTrial], domain: Domain) -> float:
    """The told cost of a member for each unit of its estimate: 1 where both are of one kind.

    It is not where a front is of parameters or latency, and the estimate one of MACs.
    """
    return float(np.median([trial.values[1] / domain.cost(trial.params) for trial in told]))


def _margin(told: Sequence[FrozenTrial]) -> float:
    """Where nothing better was found for long, each second proposal looks further away."""
    best = max(range(len(told)), key=lambda number: told[number].values[0])
    return FAR if len(told) - 1 - best >= STALE and len(told) % 2 else MARGIN


def _comparable(known: Known, level: float) -> list[int]:
    """Told members that cost no more, or the cheapest where there is none."""
    costs = [member.cost for member in known.members[: len(known.values)]]
    return [i for i, cost in enumerate(costs) if cost <= level] or [int(np.argmin(costs))]


def transformed(values: Array) -> Array:
    """The logarithm of regret, in units of its median, upside down and standardised.

    So the best are told apart, and networks that are broken, however far below, count as bad.
    """
    regret = values.max() - values
    units = np.minimum(regret / max(float(np.median(regret)), 1e-12), WORST)
    logs = -np.log(TARGET + units)
    return np.asarray((logs - logs.mean()) / max(float(logs.std()), 1e-12))


def beside_trend(values: Array, costs: Array) -> Array:
    """Values less what their costs explain, a parabola in the logarithm, and standardised.

    So small differences between choices are seen beside the large ones between costs.
    """
    logs = np.log(np.maximum(costs, 1e-12))
    order = min(2, len(np.unique(logs)) - 1)
    terms = np.vander((logs - logs.mean()) / max(float(logs.std()), 1e-12), order + 1)
    weights = np.ones(len(values))
    for _ in range(5):  # least absolute deviations: broken networks must not bend the trend
        solution = np.linalg.lstsq(terms * weights[:, None], values * weights, rcond=None)[0]
        rest = values - terms @ solution
        scale = max(float(np.median(np.abs(rest))), 1e-12)
        weights = 1 / np.sqrt(np.maximum(np.abs(rest) / scale, 0.1))
    rest = np.maximum(rest / scale, -2 * WORST)
    return np.asarray((rest - rest.mean()) / max(float(rest.std()), 1e-12))


def log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """The logarithm of the expected improvement; its asymptote where that would underflow."""
    z = (mean - best) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in z])
    direct = np.log(np.maximum(density + z * below, 1e-300))
    far = -(z**2) / 2 - math.log(2 * math.pi) / 2 - 2 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.where(z > -5, direct, far) + np.log(deviation))
