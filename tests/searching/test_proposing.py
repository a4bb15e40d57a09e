from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from nasfuse.errors import BudgetError, DocumentError
from nasfuse.names import space_names
from nasfuse.network import cost
from nasfuse.reach import SHIPPED
from nasfuse.results import SAMPLERS
from nasfuse.scaling import smallest
from nasfuse.searching.extremes import check_budget, reachable
from nasfuse.searching.proposing import Bounds, Proposer
from nasfuse.searching.storage import Storage
from nasfuse.space import RandomTrial, load_space, parse_space

SPACE = load_space("default").for_images(channels=1, classes=10)
BUDGET = 2_000_000


@pytest.fixture(params=["file", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A study's own file, and a database in which another study is already."""
    if request.param == "file":
        return Storage(tmp_path / "study.db")
    server = request.getfixturevalue("postgres")
    other = Storage(server.url(server.create()), "other")
    assert proposer(other).propose() is not None
    return Storage(other.place, "ours")


def proposer(storage: Storage | Path, sampler: str = "tpe") -> Proposer:
    kept = Storage(storage / "study.db") if isinstance(storage, Path) else storage
    return Proposer(kept, SPACE, budget=BUDGET, sampler=sampler, seed=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_fit_and_differ(tmp_path: Path, sampler: str) -> None:
    asking = proposer(tmp_path, sampler)
    keys = set()
    for number in range(25):
        proposal = asking.propose()
        assert proposal is not None
        assert proposal.cost.larger <= BUDGET
        keys.add(proposal.architecture.key)
        asking.tell(proposal.number, value=0.5 + number / 100, cost=proposal.cost.macs)
    assert len(keys) == 25 == asking.proposed


def test_references_come_first_and_fill_the_budget(tmp_path: Path) -> None:
    asking = proposer(tmp_path)
    first = [asking.propose() for _ in SPACE.references]
    assert [p.origin for p in first if p] == list(SPACE.references)
    assert all(p.cost.larger >= 0.85 * BUDGET for p in first if p)
    later = asking.propose()
    assert later is not None
    assert later.origin == "tpe"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_front_that_begins_at_the_budget_is_of_networks_that_use_it(
    tmp_path: Path, sampler: str
) -> None:
    kept = Storage(tmp_path / "study.db")
    whole = Bounds(front_from=BUDGET)
    asking = Proposer(kept, SPACE, budget=BUDGET, sampler=sampler, seed=1, bounds=whole)
    for number in range(25):
        proposal = asking.propose()
        assert proposal is not None
        assert 0.8 * BUDGET < proposal.cost.larger <= BUDGET
        asking.tell(proposal.number, value=0.5 + number / 100, cost=proposal.cost.macs)


def test_the_same_seed_proposes_the_same(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        asking = proposer(tmp_path / name)
        keys = []
        for _ in range(12):
            proposal = asking.propose()
            assert proposal is not None
            asking.tell(proposal.number, value=0.5, cost=proposal.cost.macs)
            keys.append(proposal.architecture.key)
        runs.append(keys)
    assert runs[0] == runs[1]


def test_what_was_not_told_is_unfinished_when_reopened(storage: Storage) -> None:
    asking = proposer(storage)
    made = [asking.propose() for _ in range(4)]
    assert all(made)
    asking.tell(0, value=0.7, cost=1000)
    asking.tell(1, value=None, cost=1000)
    asking.keep()
    again = proposer(storage)
    assert [p.number for p in again.unfinished()] == [2, 3]
    assert again.unfinished() == made[2:]
    assert again.proposed == 4
    new = again.propose()
    assert new is not None
    assert new.architecture.key not in {p.architecture.key for p in made if p}


def test_what_was_not_kept_is_proposed_again_under_its_number(storage: Storage) -> None:
    """A killed search may have begun to train it, and nobody has heard of that."""
    asking = proposer(storage)
    made = [asking.propose() for _ in range(3)]
    asking.keep()
    lost = [asking.propose(), asking.propose()]
    assert [p.number for p in lost if p] == [3, 4]
    again = proposer(storage)
    assert again.unfinished() == made
    assert again.proposed == 3
    following = [again.propose(), again.propose()]
    assert [p.origin for p in following if p] == [p.origin for p in lost if p]
    again.keep()
    assert [p.number for p in again.unfinished()] == [0, 1, 2, 3, 4]


def test_a_hand_made_network_lost_between_asking_and_fitting_comes_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = proposer(storage, "tpe")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("nasfuse.searching.proposing.fit_to_budget", killed)
        with pytest.raises(Killed):
            first.propose()
    again = proposer(storage, "tpe")
    assert again.unfinished() == []
    names = {p.origin for p in (again.propose() for _ in again.space.references) if p}
    assert names == set(again.space.references)


def test_a_small_space_runs_out(tmp_path: Path) -> None:
    document = {
        "resolution": 16,
        "activation": "relu",
        "stem": {"width": 8, "kernel": 3, "stride": 1},
        "stages": [
            {
                "depth": 1,
                "stride": 1,
                "block": {"kind": "residual", "kernel": 3},
                "fusion": {"each": "skip", "choice": ["add", "multiply"]},
                "width": 8,
            }
        ],
        "head": {"kind": "norm"},
        "scaling": {"alpha": 1.0, "beta": 1.0, "gamma": 1.2},
    }
    space = parse_space(document, name="tiny")
    asking = Proposer(Storage(tmp_path / "s.db"), space, budget=1_000_000, sampler="random", seed=0)
    count = 0
    while asking.propose() is not None:
        count += 1
        assert count < 500
    assert count > 2


def test_what_is_no_network_is_passed_over(tmp_path: Path) -> None:
    """Of one combination in fifty nothing can be built: the space loads, and a search goes on."""
    stage = {"depth": 1, "stride": 1, "block": {"kind": "residual", "kernel": 3}, "fusion": "add"}
    document = {
        "resolution": 16,
        "activation": "relu",
        "stem": {"width": 8, "kernel": 3, "stride": 1},
        "stages": [
            {**stage, "width": {"int": [16, 64], "step": 4}},
            {**stage, "width": {"int": [52, 128], "step": 4}, "shortcut": "padded"},
        ],
        "head": {"kind": "norm"},
        "scaling": {"alpha": 1.0, "beta": 1.1, "gamma": 1.2},
    }
    space = parse_space(document, name="padded").for_images(channels=1, classes=10)
    invalid = 0
    for seed in range(200):
        assert space.sample(seed)
        try:
            space.suggest(RandomTrial(seed))
        except DocumentError:
            invalid += 1
    assert invalid
    reach = reachable(space)
    check_budget(space, reach.least)
    asking = Proposer(Storage(tmp_path / "s.db"), space, budget=BUDGET, sampler="random", seed=0)
    assert all(asking.propose() for _ in range(200))


def test_a_budget_out_of_reach_is_refused_with_one_in_reach() -> None:
    with pytest.raises(BudgetError) as caught:
        check_budget(SPACE, 1_000)
    check_budget(SPACE, caught.value.needed)


def test_a_refusal_names_the_range() -> None:
    with pytest.raises(BudgetError, match=r"need .* to .* MACs"):
        check_budget(SPACE, 1_000)


@pytest.mark.parametrize("name", space_names())
def test_what_is_known_of_the_spaces_that_come_with_the_package_is_true(name: str) -> None:
    reach = reachable(load_space(name).for_images(channels=1, classes=2))
    assert (reach.least, reach.most) == (SHIPPED[name].least, SHIPPED[name].most)


def test_no_member_of_a_space_is_smaller_than_the_smallest_that_is_told() -> None:
    space = load_space("cifar")
    drawn = (space.sample(seed) for seed in range(1000, 1300))
    sizes = [cost(smallest(c.architecture, c.scaling)).larger for c in drawn]
    assert reachable(space).least <= min(sizes)


def test_a_refused_number_of_parameters_is_refused_with_one_that_can_be_met() -> None:
    with pytest.raises(BudgetError) as caught:
        check_budget(SPACE, 1_000_000, 50)
    offered = int((caught.value.fix or "").split()[-1])
    check_budget(SPACE, 1_000_000, offered)
    with pytest.raises(BudgetError, match="parameters"):
        check_budget(SPACE, 1_000_000, offered - 1)


def test_a_budget_that_only_one_rare_network_meets_is_no_reason_to_refuse() -> None:
    least = reachable(SPACE).least
    check_budget(SPACE, least)
    with pytest.raises(BudgetError, match="fits"):
        check_budget(SPACE, least - 1)


def test_how_much_of_a_space_can_meet_a_budget() -> None:
    reach = reachable(SPACE)
    assert reach.fitting(reach.least - 1) == 0
    assert 0 < reach.fitting(2 * reach.least) < reach.fitting(reach.most) == 1


def stored(storage: Storage) -> optuna.Study:
    """As any program with Optuna sees it."""
    place = storage.place
    url = f"sqlite:///{place}" if isinstance(place, Path) else place
    return optuna.load_study(study_name=storage.study, storage=url)


def test_the_disk_holds_what_was_proposed_and_told_and_nothing_else(storage: Storage) -> None:
    asking = proposer(storage, "random")
    made = [asking.propose() for _ in range(12)]
    asking.tell(11, value=0.5, cost=1000)
    asking.keep()
    study = stored(storage)
    assert [p.number for p in made if p] == list(range(12)) == [t.number for t in study.trials]
    assert study.trials[11].values == [0.5, 1000]
    assert [t.user_attrs["key"] for t in study.trials] == [p.architecture.key for p in made if p]
    again = proposer(storage, "random")
    again.tell(3, value=0.25, cost=2000)
    assert again.propose() not in made
    again.keep()
    study = stored(storage)
    assert study.trials[3].values == [0.25, 2000]
