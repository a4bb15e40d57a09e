"""Contracts of all samplers, on a small conditional domain and on the default space."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nasfuse.holes import Value
from nasfuse.results import SAMPLERS
from nasfuse.searching.guided import (
    OBSERVED,
    GuidedSampler,
    beside_trend,
    log_improvement,
    transformed,
)
from nasfuse.searching.members import Asked, Domain, Replay, key
from nasfuse.searching.proposing import domain as domain_of
from nasfuse.searching.samplers import make_sampler
from nasfuse.space import load_space

NAMES = sorted({*SAMPLERS, "evolution", "guided"})
OURS = ("evolution", "guided")
SPACE = load_space("default")
LETTERS = "abcd"


def suggest(trial: Asked) -> None:
    """A share, four edges of a cell, and a width only where the first is an 'a'."""
    trial.suggest_float("share", 1 / 64, 1.0, log=True)
    edges = [trial.suggest_categorical(f"edge.{i}", LETTERS) for i in range(4)]
    if edges[0] == "a":
        trial.suggest_int("width", 8, 32, step=8)


def quality(params: Mapping[str, Value]) -> float:
    edges = [LETTERS.index(str(params[f"edge.{i}"])) for i in range(4)]
    return 0.5 + 0.05 * sum(edges) + 0.01 * float(params.get("width") or 0) / 8


def cost(params: Mapping[str, Value]) -> float:
    return 100 * float(params["share"] or 1)


FRONT = Domain(suggest, cost, "share")


def cell(trial: Asked) -> None:
    for i in range(5):
        trial.suggest_categorical(f"edge.{i}", LETTERS)


def cell_cost(params: Mapping[str, Value]) -> float:
    used = sum(LETTERS.index(str(value)) for value in params.values())
    return used if used <= 9 else math.inf


BEST = Domain(cell, cell_cost)


def new_study(name: str, domain: Domain, seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    both = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    directions = both if domain.share else both[:1]
    return optuna.create_study(directions=directions, sampler=make_sampler(name, domain, seed))


def values_of(params: Mapping[str, Value], domain: Domain) -> list[float]:
    if domain.share:
        return [quality(params), domain.cost(params)]
    return [sum(LETTERS.index(str(v)) ** 0.5 for v in params.values())]


@pytest.mark.parametrize("name", ["evolution", "guided", "nsga2"])
def test_the_cost_that_is_told_counts(name: str) -> None:
    """And not what was expected from the share of the budget: it may be one of another kind."""
    proposed = []
    for dear in "ad":
        study = new_study(name, FRONT)
        for _ in range(40):
            trial = study.ask()
            suggest(trial)
            told = cost(trial.params) * (100 if trial.params["edge.0"] == dear else 0.01)
            study.tell(trial, [quality(trial.params), told])
        proposed.append([trial.params for trial in study.trials])
    assert proposed[0] != proposed[1]


def advance(study: optuna.Study, domain: Domain, count: int) -> list[dict[str, Value]]:
    made = []
    for _ in range(count):
        trial = study.ask()
        domain.suggest(trial)
        made.append(dict(trial.params))
        study.tell(trial, values_of(trial.params, domain))
    return made


@pytest.mark.parametrize("domain", [FRONT, BEST], ids=["front", "best"])
@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_and_values_give_equal_proposals(name: str, domain: Domain) -> None:
    runs = [advance(new_study(name, domain, 3), domain, 30) for _ in range(2)]
    assert runs[0] == runs[1]
    assert advance(new_study(name, domain, 4), domain, 30) != runs[0]


@pytest.mark.parametrize("domain", [FRONT, BEST], ids=["front", "best"])
@pytest.mark.parametrize("name", OURS)
def test_what_is_not_allowed_and_what_was_asked_for_is_never_proposed(
    name: str, domain: Domain
) -> None:
    study = new_study(name, domain)
    made = []
    for number in range(60):
        trial = study.ask()
        domain.suggest(trial)
        made.append(key(trial.params))
        assert math.isfinite(domain.cost(trial.params))
        if number % 3:
            study.tell(trial, values_of(trial.params, domain))
        else:
            study.tell(trial, state=TrialState.FAIL)
    assert len(set(made)) == 60


@pytest.mark.parametrize("name", NAMES)
def test_conditional_parameters_are_there_exactly_where_they_apply(name: str) -> None:
    for params in advance(new_study(name, FRONT), FRONT, 40):
        assert ("width" in params) == (params["edge.0"] == "a")


@pytest.mark.parametrize("outstanding", [8, 64])
@pytest.mark.parametrize("name", NAMES)
def test_outstanding_proposals_differ_and_are_spread(name: str, outstanding: int) -> None:
    domain = domain_of(SPACE, 1_000_000)
    study = new_study(name, domain)
    generator = random.Random(0)
    for _ in range(30):
        trial = study.ask()
        domain.suggest(trial)
        study.tell(trial, [generator.random(), domain.cost(trial.params)])
    made = []
    for _ in range(outstanding):
        trial = study.ask()
        domain.suggest(trial)
        made.append(trial.params)
    assert len({key(params) for params in made}) == outstanding
    differing = [len(a.items() ^ b.items()) / 2 for a, b in itertools.combinations(made, 2)]
    assert np.median(differing) >= 4
    if name == "guided":  # a quarter of them use all of the budget, the others less
        whole = sum(params["share"] == 1 for params in made)
        assert 1 <= whole <= outstanding / 2 + 1


@pytest.mark.parametrize("name", OURS)
def test_a_resumed_search_uses_what_was_told(name: str) -> None:
    first = new_study(name, FRONT)
    told = advance(first, FRONT, 25)
    again = new_study(name, FRONT, seed=25)
    again.add_trials(first.get_trials(deepcopy=False))
    more = advance(again, FRONT, 10)
    assert not {key(params) for params in told} & {key(params) for params in more}


@pytest.mark.parametrize("name", OURS)
def test_where_members_are_listed_no_other_is_proposed(name: str) -> None:
    everything = itertools.product(LETTERS, repeat=5)
    listed = [{f"edge.{i}": v for i, v in enumerate(code)} for code in everything][::9]
    known = {key(member) for member in listed}

    def price(params: Mapping[str, Value]) -> float:
        return 1.0 if key(params) in known else math.inf

    domain = Domain(cell, price, members=listed)
    made = {key(params) for params in advance(new_study(name, domain), domain, 50)}
    assert len(made) == 50
    assert made <= known


def test_small_members_live_on_in_the_population_of_a_front() -> None:
    study = new_study("evolution", FRONT)
    shares = [float(params["share"] or 0) for params in advance(study, FRONT, 120)[60:]]
    assert min(shares) < 1 / 16


def regret(name: str, seed: int, evaluations: int) -> float:
    """On an additive table with pairs, of which half may be afforded."""
    generator = np.random.default_rng(7)
    alone = generator.normal(size=(5, 4))
    pairs = 0.5 * generator.normal(size=(5, 4, 4))

    def true(params: Mapping[str, Value]) -> float:
        code = [LETTERS.index(str(params[f"edge.{i}"])) for i in range(5)]
        joint = sum(pairs[i, code[i], code[i - 1]] for i in range(5))
        return float(sum(alone[i, c] for i, c in enumerate(code)) + joint)

    table = [
        {f"edge.{i}": v for i, v in enumerate(code)}
        for code in itertools.product(LETTERS, repeat=5)
    ]
    best = max(true(params) for params in table if math.isfinite(cell_cost(params)))
    study, found = new_study(name, BEST, seed), -math.inf
    while len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < evaluations:
        trial = study.ask()
        cell(trial)
        if math.isinf(cell_cost(trial.params)):
            study.tell(trial, state=TrialState.FAIL)
            continue
        found = max(found, true(trial.params))
        study.tell(trial, true(trial.params))
    return best - found


def test_guided_search_begins_with_members_that_cost_much_where_the_cost_is_free() -> None:
    def mean(name: str, domain: Domain) -> float:
        firsts = [advance(new_study(name, domain, seed), domain, 1)[0] for seed in range(60)]
        return float(np.mean([domain.cost(first) for first in firsts]))

    assert mean("guided", BEST) > mean("evolution", BEST) + 0.8


def test_guided_search_beats_random_search_clearly() -> None:
    guided = np.mean([regret("guided", seed, 40) for seed in range(4)])
    uniform = np.mean([regret("random", seed, 40) for seed in range(4)])
    assert guided < 0.5 * uniform


def test_bad_outliers_do_not_hide_the_differences_between_the_best() -> None:
    values = transformed(np.array([10.0, 10.0, 88.0, 89.0, 90.0, 91.0]))
    assert values[5] - values[3] > 0.3 * (values[3] - values[0])
    assert np.all(np.diff(values) >= 0)
    assert np.isfinite(transformed(np.ones(5))).all()


def test_improvement_is_ordered_where_it_underflows() -> None:
    far = log_improvement(np.array([-60.0, -50.0, -4.0, 1.0]), np.ones(4), 0.0)
    assert np.isfinite(far).all()
    assert np.all(np.diff(far) > 0)


def test_a_replay_redraws_what_is_no_longer_allowed() -> None:
    given: dict[str, Value] = {"a": "gone", "b": 5, "c": 9.0}
    replay = Replay(given, random.Random(0), {})
    assert replay.suggest_categorical("a", ["x", "y"]) in "xy"
    assert replay.suggest_int("b", 0, 8, step=4) in (0, 4, 8)
    assert 1 <= replay.suggest_float("c", 1.0, 2.0, log=True) <= 2
    assert replay.params.keys() == given.keys()


def test_of_many_members_the_best_for_their_cost_are_kept() -> None:
    """The surrogate sees some of them only; by value alone no cheap one would be among them."""
    generator, told = random.Random(0), []
    for number in range(4 * OBSERVED):
        doublings, merit = generator.uniform(0, 6), generator.gauss(0, 0.3)
        values = [0.6 * doublings + merit, 2.0**doublings]
        told.append(optuna.trial.create_trial(values=values, user_attrs={"merit": merit}))
        told[-1].number = number
    sampler = GuidedSampler(Domain(suggest, cost), 0)
    kept = sampler._some(told, front=True)
    cheap = [trial for trial in told if trial.values[1] < 4]
    best = sorted(cheap, key=lambda trial: -trial.user_attrs["merit"])[: len(cheap) // 25]
    assert len(kept) == OBSERVED
    assert {trial.number for trial in best} <= {trial.number for trial in kept}


def test_small_differences_are_seen_beside_the_trend_with_cost() -> None:
    generator = np.random.default_rng(0)
    costs = np.exp(generator.uniform(0, 4, 40))
    gain = generator.normal(0, 0.01, 40)
    values = 0.5 + 0.1 * np.log(costs) + gain
    values[3] = 0.1  # broken
    rest = np.delete(beside_trend(values, costs), 3)
    assert np.corrcoef(rest, np.delete(gain, 3))[0, 1] > 0.9
    assert np.isfinite(beside_trend(np.ones(3), np.ones(3))).all()
