"""Proposing: which network to try next, within the budget and never the same twice.

Optuna proposes parameters, the space makes a document of them, the size is solved for. A
proposal is on the disk, in Optuna's storage, before anybody trains it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.costs import Cost, show_macs
from nasfuse.errors import BudgetError
from nasfuse.network import cost
from nasfuse.scaling import fit_to_budget
from nasfuse.space import Candidate, SearchSpace

# A trial's own target lies between this share of the budget and all of it, so that the front has
# cheap networks as well; 6 doublings.
SMALLEST_SHARE = 1 / 64
MAX_DUPLICATES = 100


@dataclass(frozen=True)
class Proposal:
    """A network to train; `number` is the trial's in Optuna, `origin` who proposed it."""

    number: int
    origin: str
    architecture: Architecture

    @property
    def cost(self) -> Cost:
        return cost(self.architecture)


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Optuna's sampler of this name."""
    if name == "random":
        return RandomSampler(seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=20, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # multivariate in groups: the univariate default gets stuck on duplicates in such spaces
        return TPESampler(multivariate=True, group=True, seed=seed, n_startup_trials=16)


class Proposer:
    """Asks Optuna for candidates and tells it what came of them.

    The study maximises accuracy on the first rung and minimises MACs.
    """

    def __init__(
        self, storage: Path, space: SearchSpace, *, budget: int, sampler: str, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.budget, self.sampler = space, budget, sampler
        self.study = optuna.create_study(
            storage=f"sqlite:///{storage.resolve()}",
            study_name="nasfuse",
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        trials = self.study.get_trials(deepcopy=False)
        # a resumed search must not draw the same numbers again
        self.study.sampler = make_sampler(sampler, seed + len(trials))
        known = {t.user_attrs.get("origin") for t in trials}
        for name in space.references:
            if name not in known:
                params = space.reference(name) | {"share": 1.0}
                self.study.enqueue_trial(params, user_attrs={"origin": name})
        self.seen = {t.user_attrs["key"] for t in trials if "key" in t.user_attrs}

    def unfinished(self) -> list[Proposal]:
        """Proposals that were made and never told: what a killed search left."""
        left = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "key" in trial.user_attrs:
                left.append(_proposal(trial))
            else:  # killed between asking and fitting: a hand-made one is asked for again
                self.study.tell(trial.number, state=TrialState.FAIL)
                if params := trial.system_attrs.get("fixed_params"):
                    attributes = {"origin": trial.user_attrs["origin"]}
                    self.study.enqueue_trial(params, user_attrs=attributes)
        return left

    @property
    def proposed(self) -> int:
        """How many different networks have been proposed so far."""
        return len(self.seen)

    def propose(self) -> Proposal | None:
        """A new network within the budget; None when the space seems to have no more."""
        for _ in range(MAX_DUPLICATES):
            trial = self.study.ask()
            share = trial.suggest_float("share", SMALLEST_SHARE, 1.0, log=True)
            architecture = self._fit(self.space.suggest(trial), share)
            if architecture is None or architecture.key in self.seen:
                reason = "does not fit" if architecture is None else "duplicate"
                trial.set_user_attr("rejected", reason)
                self.study.tell(trial, state=TrialState.FAIL)  # invisible to every sampler
                continue
            self.seen.add(architecture.key)
            origin = trial.user_attrs.get("origin", self.sampler)
            trial.set_user_attr("origin", origin)
            trial.set_user_attr("architecture", architecture.to_json())
            trial.set_user_attr("key", architecture.key)  # the last one: now it counts
            return Proposal(trial.number, origin, architecture)
        return None

    def _fit(self, candidate: Candidate, share: float) -> Architecture | None:
        for target in (share * self.budget, self.budget):
            try:
                return fit_to_budget(candidate.architecture, candidate.scaling, int(target))
            except BudgetError:  # too small a target for this network: give it the whole budget
                continue
        return None

    def tell(self, number: int, *, accuracy: float | None, macs: int) -> None:
        """What the first rung found; None for a trial that failed."""
        if accuracy is None:
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            self.study.tell(number, [accuracy, macs], skip_if_finished=True)


def _proposal(trial: FrozenTrial) -> Proposal:
    document = json.loads(trial.user_attrs["architecture"])
    architecture = parse_architecture(document, where=f"trial {trial.number} of study.db")
    return Proposal(trial.number, trial.user_attrs["origin"], architecture)


def reachable(space: SearchSpace, *, samples: int = 64) -> int:
    """MACs of about the cheapest network of the space: the smallest budget that can be met."""
    smallest = []
    for seed in range(samples):
        candidate = space.sample(seed)
        try:
            fit_to_budget(candidate.architecture, candidate.scaling, 0)
        except BudgetError as error:
            smallest.append(error.needed)
    return min(smallest)


def check_budget(space: SearchSpace, budget: int) -> None:
    """Refuse a budget that no network of the space can meet, before anything starts.

    Raises:
        BudgetError: with the smallest budget that can be met.
    """
    least = reachable(space)
    if budget < least:
        raise BudgetError(
            f"no network of the space '{space.name}' fits {show_macs(budget)} MACs",
            where="--budget",
            why=f"the cheapest one found needs {show_macs(least)} MACs",
            fix=f"--budget {-(-least // 100_000) / 10:g}MFLOPs",
            needed=least,
        )
