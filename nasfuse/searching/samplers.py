"""Samplers by name: which parameters to ask for next.

Each is a sampler of Optuna, so its ask and tell is the one interface, and any other sampler of
Optuna's can take its place. They know parameters, costs and told values only. With one direction
they look for the best, with two (accuracy up, cost down) for a front.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nasfuse.searching.guided import GuidedSampler, beside_trend
from nasfuse.searching.members import Domain, Genes, MemberSampler
from nasfuse.searching.surrogate import Array

POPULATION, TOURNAMENT = 20, 5


class EvolutionSampler(MemberSampler):
    """Regularised evolution: a mutant of a tournament's winner; the oldest die.

    Real et al. 2019, arXiv:1802.01548. For a front members are compared by what their cost does
    not explain, so that cheap ones live on, and a mutant's own cost is drawn again as well.
    """

    def choose(self, trials: Sequence[FrozenTrial], *, directions: int) -> Genes:
        told = [t for t in trials if t.state == TrialState.COMPLETE][-POPULATION:]
        if len(trials) < POPULATION or not told:
            return self.first(lambda: self.drawn({}))
        fitness = _fitness(told)
        entrants = self.random.sample(range(len(told)), min(TOURNAMENT, len(told)))
        winner = told[max(entrants, key=lambda index: fitness[index])].params
        if directions > 1 and self.domain.share:
            winner = {name: v for name, v in winner.items() if name != self.domain.share}
        return self.first(lambda: self.mutated(winner, genes=1, given={}))


def _fitness(population: Sequence[FrozenTrial]) -> Array:
    values = np.array([trial.values for trial in population])
    return values[:, 0] if values.shape[1] == 1 else beside_trend(values[:, 0], values[:, 1])


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
