"""Proposing: which network to try next, within the budget and never the same twice.

Optuna proposes parameters, the space makes a document of them, the size is solved for. A
proposal is put on the disk, in Optuna's storage, while its training begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.costs import Cost
from nasfuse.errors import BudgetError, DocumentError, StorageError
from nasfuse.holes import Trial, Value, fill
from nasfuse.network import cost
from nasfuse.results import Result
from nasfuse.scaling import fit_to_budget
from nasfuse.searching.members import Asked, Domain
from nasfuse.searching.samplers import make_sampler
from nasfuse.searching.storage import DIRECTIONS, Storage
from nasfuse.space import SearchSpace

# A trial's own target lies between this share of the budget and all of it, where nothing else was
# asked for, so that the front has cheap networks as well; 6 doublings.
SMALLEST_SHARE = 1 / 64
SHARE = "share"
MAX_DUPLICATES, MAX_MISFITS = 100, 1000  # in a row, before a proposer gives up
LOST = 1000  # numbers that may be in neither the storage nor the results: far more than ran at once


@dataclass(frozen=True)
class Proposal:
    """A network to train; `number` is the trial's in Optuna, `origin` who proposed it."""

    number: int
    origin: str
    architecture: Architecture

    @property
    def cost(self) -> Cost:
        return cost(self.architecture)


class Bounds(NamedTuple):
    """Of proposals besides the budget: parameters, and MACs of the cheapest target one is given."""

    max_params: int | None = None
    front_from: int | None = None


UNBOUND = Bounds()


class Proposer:
    """Asks a sampler for candidates and tells it what came of them.

    The study maximises what the first rung promises and minimises the cost it is told. Samplers see
    a copy of it in memory, for on the disk each parameter would wait for a sync: a trial is written
    as a whole when it is proposed, and once more when it is told. What was refused stays out of the
    database.

    Optuna takes three questions a parameter to write a trial, more time than to propose one. So
    it is done by `keep`, which is called when no worker waits. A search that is killed before has
    lost a proposal whose training has just begun; of what was told, results are on the disk.
    """

    def __init__(
        self,
        storage: Storage,
        space: SearchSpace,
        *,
        budget: int,
        sampler: str,
        seed: int,
        bounds: Bounds = UNBOUND,
    ) -> None:
        self.space, self.budget, self.sampler = space, budget, sampler
        self.gave_up: str | None = None
        self.max_params = bounds.max_params
        self.smallest = smallest_share(budget, bounds.front_from)
        self.kept = storage.open()
        stored = self.kept.all()
        proposed = [trial for trial in stored if "key" in trial.user_attrs]
        with self.kept.place.using():  # which knows what to say of one without an origin
            known = {trial.user_attrs["origin"] for trial in proposed}
        # a resumed search must not draw the same numbers again
        asked = make_sampler(sampler, domain(space, budget, self.smallest), seed + len(stored))
        self._live = optuna.create_study(directions=DIRECTIONS, sampler=asked)
        told = [trial for trial in proposed if trial.params]
        self._live.add_trials(told)
        self._numbers = {trial.number: live for live, trial in enumerate(told)}
        self.seen = {trial.user_attrs["key"] for trial in proposed}
        for name in space.references:
            if name not in known:
                params = space.reference(name) | {SHARE: 1.0}
                self._live.enqueue_trial(params, user_attrs={"origin": name})

    def unfinished(self) -> list[Proposal]:
        """Proposals that were kept and never told: what a killed search left.

        Raises:
            StorageError: the database cannot be used; so does `keep`.
        """
        running = [trial for trial in self.kept.all() if trial.state == TrialState.RUNNING]
        with self.kept.place.using():
            return [_proposal(trial) for trial in running if "key" in trial.user_attrs]

    def catch_up(self, results: Iterable[Result]) -> None:
        """Take in networks that the storage has lost, as after its backup was put in its place.

        They keep their numbers and are not proposed again. What their parameters were is lost: no
        sampler learns from them.

        Raises:
            StorageError: their numbers leave out more than a search can have lost.
        """
        first = {r.number: r for r in results if r.rung == 0 and r.key not in self.seen}
        missing = range(len(self.kept), max(first, default=-1) + 1)
        if len(missing) > len(first) + LOST:
            raise StorageError(
                "the results are damaged",
                where=f"results.jsonl, trial {missing[-1]}",
                why=f"of {len(missing):,} trials up to it that the database lacks, only "
                f"{len(first):,} have a result",
                fix="remove the line",
            )
        for number in missing:
            self.kept.add(_lost(first.get(number)))
        self.keep()
        self.seen.update(result.key for result in first.values())

    @property
    def proposed(self) -> int:
        """How many different networks have been proposed so far."""
        return len(self.seen)

    def propose(self) -> Proposal | None:
        """A new network within the budget; None where none was found, and `gave_up` says why."""
        misfits = duplicates = 0
        while misfits < MAX_MISFITS and duplicates < MAX_DUPLICATES:
            trial = self._live.ask()
            share = trial.suggest_float(SHARE, self.smallest, 1.0, log=True)
            architecture = self._fit(trial, share)
            if architecture is None:
                misfits += 1
            elif architecture.key in self.seen:
                duplicates += 1
            else:
                return self._record(trial, architecture)
            self._live.tell(trial, state=TrialState.FAIL)  # a value that no sampler counts
        self.gave_up = (
            f"no new network was found: of {misfits + duplicates:,} proposals {misfits:,} did not "
            f"fit and {duplicates:,} had come before"
        )
        return None

    def _record(self, trial: optuna.Trial, architecture: Architecture) -> Proposal:
        """Number a proposal and let it be kept."""
        origin = trial.user_attrs.get("origin", self.sampler)
        attributes = {
            "origin": origin,
            "architecture": architecture.to_json(),
            "key": architecture.key,
        }
        live = self._live.get_trials(deepcopy=False)[trial.number]
        proposed = create_trial(
            state=TrialState.RUNNING,
            params=live.params,
            distributions=live.distributions,
            user_attrs=attributes,
            system_attrs=live.system_attrs,  # nsga2 keeps its generations there
        )
        number = self.kept.add(proposed)
        self._numbers[number] = trial.number
        self.seen.add(architecture.key)
        return Proposal(number, origin, architecture)

    def keep(self) -> None:
        """Put on the disk what was proposed and told since the last time."""
        self.kept.write()

    def _fit(self, trial: Trial, share: float) -> Architecture | None:
        try:
            candidate = self.space.suggest(trial)
        except DocumentError:  # not every filling of every space is a network
            return None
        genes, scaling, most = candidate.architecture, candidate.scaling, self.max_params
        for target in (share * self.budget, self.budget):
            try:
                return fit_to_budget(genes, scaling, int(target), most)
            except BudgetError:  # too small a target for this network: give it the whole budget
                continue
        return None

    def tell(self, number: int, *, value: float | None, cost: float) -> None:
        """What the first rung promises, and the cost that is to be low; None if it failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        values = None if value is None else [value, float(cost)]
        self.kept.finish(number, state, values)
        live = self._numbers[number]
        self._live.tell(live, values, state=state, skip_if_finished=True)


def smallest_share(budget: int, front_from: int | None) -> float:
    """Of the budget, for the target of the cheapest proposals."""
    return SMALLEST_SHARE if front_from is None else front_from / budget


def domain(space: SearchSpace, budget: int, smallest: float = SMALLEST_SHARE) -> Domain:
    """What samplers are told of a space: its parameters, and how much of the budget to use.

    A network is fitted to the share only once it is chosen, which takes milliseconds.
    """

    def suggest(trial: Asked) -> None:
        trial.suggest_float(SHARE, smallest, 1.0, log=True)
        fill(space.template, trial, "")

    def price(params: Mapping[str, Value]) -> float:
        return float(params[SHARE] or 1.0) * budget

    return Domain(suggest, price, SHARE)


def _proposal(trial: FrozenTrial) -> Proposal:
    document = json.loads(trial.user_attrs["architecture"])
    architecture = parse_architecture(document, where=f"proposal {trial.number}")
    return Proposal(trial.number, trial.user_attrs["origin"], architecture)


def _lost(result: Result | None) -> FrozenTrial:
    """What is still known of a trial that the storage has lost: its result, if it had one."""
    if result is None:
        return create_trial(state=TrialState.FAIL)
    known = {"origin": result.origin, "key": result.key}
    if result.accuracy is None:
        return create_trial(state=TrialState.FAIL, user_attrs=known)
    return create_trial(values=[result.accuracy, result.cost], user_attrs=known)
