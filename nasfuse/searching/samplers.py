"""Samplers by name: which parameters to ask for next.

Each is a sampler of Optuna, so its ask and tell is the one interface, and any other sampler of
Optuna's can take its place. They know parameters, costs and told values only. With one direction
they look for the best, with two (accuracy up, cost down) for a front.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nasfuse.pareto import Point, dominates
from nasfuse.searching.guided import GuidedSampler
from nasfuse.searching.members import Domain, Genes, MemberSampler

POPULATION, TOURNAMENT = 20, 5


class EvolutionSampler(MemberSampler):
    """Regularised evolution: a mutant of a tournament's winner; the oldest die.

    Real et al. 2019, arXiv:1802.01548. For a front the fitter one is the one that fewer others of
    the population dominate, so that cheap members live on.
    """

    def choose(self, trials: Sequence[FrozenTrial], *, directions: int) -> Genes:
        told = [t for t in trials if t.state == TrialState.COMPLETE][-POPULATION:]
        if len(trials) < POPULATION or not told:
            return self.first(lambda: self.drawn({}))
        entrants = self.random.sample(told, min(TOURNAMENT, len(told)))
        winner = max(entrants, key=lambda t: _fitness(t, told))
        return self.first(lambda: self.mutated(winner.params, genes=1, given={}))


def _fitness(trial: FrozenTrial, population: Sequence[FrozenTrial]) -> float:
    if len(trial.values) == 1:
        return float(trial.values[0])
    point = Point(*trial.values)
    return -float(sum(dominates(Point(*other.values), point) for other in population))


def make_sampler(name: str, domain: Domain, seed: int) -> BaseSampler:
    """The sampler of this name."""
    match name:
        case "random":
            return RandomSampler(seed)
        case "nsga2":
            return NSGAIISampler(population_size=20, seed=seed)
        case "guided":
            return GuidedSampler(domain, seed)
        case "evolution":
            return EvolutionSampler(domain, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # multivariate in groups: the univariate default gets stuck on duplicates in such spaces
        return TPESampler(multivariate=True, group=True, seed=seed, n_startup_trials=16)
