from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from nasfuse.architecture import parse_architecture
from nasfuse.errors import DocumentError
from nasfuse.ops.fusion import FUSIONS
from nasfuse.references import load_architecture
from nasfuse.scaling import fit_to_budget
from nasfuse.space import (
    PatternTrial,
    find_space,
    load_space,
    parse_space,
    space_names,
)


@pytest.mark.parametrize("name", space_names())
def test_every_shipped_space_fills_with_sound_documents(name: str) -> None:
    space = load_space(name)
    keys = {space.sample(seed).architecture.key for seed in range(200)}
    assert len(keys) > 190
    assert space.size > 1e6


def test_default_space_has_what_the_project_is_about() -> None:
    space = load_space("default")
    assert {"add", "concat", "concat_conv", "multiply", "gated", "aff"} <= set(space.fusions)
    seen = [space.sample(seed) for seed in range(300)]
    stages = [stage for candidate in seen for stage in candidate.architecture.stages]
    assert {stage.block.kind for stage in stages} == {"residual", "mbconv", "dense"}
    assert {stage.growth for stage in stages} >= {None, 8, 24}
    assert len({candidate.scaling for candidate in seen}) == 300


def test_optuna_and_replay_fill_alike() -> None:
    space = load_space("default")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(50):
        trial = study.ask()
        candidate = space.suggest(trial)
        assert space.suggest(optuna.trial.FixedTrial(trial.params)) == candidate


def test_what_does_not_apply_does_not_exist() -> None:
    space = load_space("default")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(50):
        trial = study.ask()
        architecture = space.suggest(trial).architecture
        for number, stage in enumerate(architecture.stages):
            assert (f"stages.{number}.growth" in trial.params) == stage.grows
            kind = f"stages.{number}.block.{stage.block.kind}"
            blocks = [n for n in trial.params if n.startswith(f"stages.{number}.block.")]
            assert all(n.startswith(kind) for n in blocks)


@pytest.mark.parametrize(
    ("space", "name"), [(s, r) for s in space_names() for r in load_space(s).references]
)
def test_references_are_what_they_are_called(space: str, name: str) -> None:
    loaded = load_space(space)
    params = loaded.reference(name)
    architecture = loaded.suggest(optuna.trial.FixedTrial(params)).architecture
    if name.startswith("all-"):
        assert set(architecture.fusions) == {name.removeprefix("all-")}
    assert loaded.suggest(PatternTrial(loaded.references[name])).architecture == architecture


@pytest.mark.parametrize("name", space_names())
def test_every_space_has_its_uniform_networks_as_references(name: str) -> None:
    """For the search to be compared with what one would do by hand."""
    space = load_space(name)
    found = [
        space.suggest(PatternTrial(patterns)).architecture for patterns in space.references.values()
    ]
    uniform = {a.fusions[0] for a in found if len(set(a.fusions)) == 1}
    wanted = {"add", "concat", "multiply", "gated", "aff", "concat_conv"} & set(space.fusions)
    assert wanted <= uniform
    blocks = [{s.block.kind for s in a.stages} for a in found]
    offered = {s.block.kind for seed in range(50) for s in space.sample(seed).architecture.stages}
    assert {"mbconv"} in blocks or "mbconv" not in offered


@pytest.mark.parametrize("budget", [1_000_000, 10_000_000, 400_000_000])
def test_uniform_networks_of_the_default_space_differ_in_their_fusion_only(budget: int) -> None:
    """A comparison of them is one of fusions; under small budgets they do not lose sight either."""
    space = load_space("default")
    uniform = [name for name in space.references if name.startswith("all-")]
    assert {name.removeprefix("all-") for name in uniform} == set(space.fusions)
    shared = [
        {
            k: v
            for k, v in space.reference(name).items()
            if ".fusion." not in k and "growth" not in k
        }
        for name in uniform
    ]
    assert all(one == shared[0] for one in shared)
    for name in uniform:
        candidate = space.suggest(PatternTrial(space.references[name]))
        fitted = fit_to_budget(candidate.architecture, candidate.scaling, budget)
        assert fitted.resolution == space.resolution


def test_a_small_space_is_counted() -> None:
    space = parse_space(_small(), name="small")
    # depth 1: 2 fusions; depth 2: 2 * 2; each times 3 widths
    assert space.size == 3 * 2 + 3 * 4
    keys = {space.sample(seed).architecture.key for seed in range(500)}
    assert len(keys) == 18


def _small() -> dict[str, Any]:
    return {
        "resolution": 16,
        "activation": "relu",
        "stem": {"width": 8, "kernel": 3, "stride": 1},
        "stages": [
            {
                "depth": {"int": [1, 2]},
                "stride": 1,
                "block": {"kind": "residual", "kernel": 3},
                "fusion": {"each": "skip", "choice": ["add", "multiply"]},
                "width": {"int": [8, 24], "step": 8},
            }
        ],
        "head": {"kind": "norm"},
        "scaling": {"alpha": 1.2, "beta": 1.1, "gamma": 1.1},
    }


WRONG_HOLES: dict[str, tuple[object, str]] = {
    "no options": ({"choice": []}, "stages.0.width"),
    "reversed": ({"int": [9, 3]}, "stages.0.width"),
    "step that does not fit": ({"int": [8, 20], "step": 8}, "no multiple"),
    "misspelt step": ({"int": [8, 24], "stp": 8}, "step"),
    "two alike": ({"choice": [8, 8]}, "two choices"),
    "text": ({"int": ["a", "b"]}, "stages.0.width"),
    "endless": ({"float": [1.0, 10**400]}, "stages.0.width"),
    "endless the other way": ({"int": [-(10**400), 3]}, "stages.0.width"),
    "condition": ({"int": [8, 16], "when": "always"}, "when"),
    "unknown neighbour": ({"int": [8, 16], "when": {"fuson": "add"}}, "fusion   in place of fuson"),
    "no depth": ({"choice": [{"kind": 8, "x": {"each": "skip", "choice": [8]}}]}, "'depth'"),
    "circle": ({"int": [8, 16], "when": {"width": 8}}, "in a circle"),
}


@pytest.mark.parametrize(("hole", "named"), WRONG_HOLES.values(), ids=WRONG_HOLES.keys())
def test_a_wrong_hole_is_named_when_the_space_is_loaded(
    tmp_path: Path, hole: object, named: str
) -> None:
    document = _small()
    document["stages"][0]["width"] = hole
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(DocumentError) as caught:
        load_space(str(path))
    assert named in str(caught.value)


def test_an_unknown_space_offers_a_near_one() -> None:
    with pytest.raises(DocumentError) as caught:
        find_space("defualt")
    assert caught.value.fix == "--space default"


def test_a_document_that_is_no_space(tmp_path: Path) -> None:
    for text in ("[]", "stages: 3", "stages: []"):
        path = tmp_path / "none.yaml"
        path.write_text(text)
        with pytest.raises(DocumentError, match="not a search space"):
            load_space(str(path))


def test_a_space_offers_every_fusion() -> None:
    assert set(load_space("fusions").fusions) == set(FUSIONS)


def test_efficientnet_b0_is_a_point_of_the_mobile_space() -> None:
    space = load_space("mobile").for_images(channels=3, classes=1000)
    trial = PatternTrial(space.references["efficientnet_b0"])
    assert space.suggest(trial).architecture == load_architecture("efficientnet_b0")


def test_densenet_bc_is_a_point_of_the_densenet_space() -> None:
    space = load_space("densenet")
    trial = PatternTrial(space.references["densenet_bc"])
    assert space.suggest(trial).architecture == load_architecture("densenet_bc_100_12")


@pytest.mark.parametrize("name", space_names())
def test_documents_survive_json_and_keep_their_keys(name: str) -> None:
    space = load_space(name)
    for seed in range(1000 if name == "default" else 200):
        architecture = space.sample(seed).architecture
        again = parse_architecture(json.loads(architecture.to_json()), where=name)
        assert (again, again.key) == (architecture, architecture.key)


def test_a_fusion_without_a_skip_does_not_make_another_network() -> None:
    """Where `shortcut: equal` leaves no skip, whatever a trial draws gives one document."""
    space = load_space("mobile")
    trial = PatternTrial(space.references["efficientnet_b0"])
    b0 = space.suggest(trial).architecture
    idle = [f"stages.{n}.fusion.0" for n in range(7)]
    other = PatternTrial({**dict.fromkeys(idle, "gated"), **space.references["efficientnet_b0"]})
    assert space.suggest(other).architecture.key == b0.key
    skips = sum(stage.depth for stage in b0.stages) - len(idle)
    assert b0.fusions == ("add",) * skips


def test_when_takes_several_values() -> None:
    space = load_space("densenet")
    for seed in range(50):
        for stage in space.sample(seed).architecture.stages:
            kind = stage.fusion[0].kind
            assert (stage.width is None) == (kind == "concat")
            assert (stage.growth is None) == (kind == "concat_conv")


def test_a_condition_may_stand_before_what_it_depends_on() -> None:
    document = _small()
    stage = document["stages"][0]
    stage["growth"] = {"int": [8, 16], "step": 8, "when": {"fusion": "concat"}}
    stage["fusion"]["choice"].append("concat")
    turned = {**document, "stages": [dict(reversed(stage.items()))]}
    space = parse_space(turned, name="turned")
    assert space.size == parse_space(document, name="x").size
    growths = {space.sample(seed).architecture.stages[0].growth for seed in range(50)}
    assert growths == {None, 8, 16}


def test_a_condition_on_what_is_not_there_is_not_met() -> None:
    document = _small()
    stage = document["stages"][0]
    stage["shortcut"] = {"choice": [None, "padded"], "when": {"fusion": "add"}}
    stage["attention"] = {"choice": ["eca"], "when": {"shortcut": "padded"}}
    space = parse_space(document, name="chained")
    found = [space.sample(seed).architecture.stages[0] for seed in range(50)]
    assert {stage.shortcut for stage in found} == {None, "padded"}
    for stage in found:
        assert (stage.attention is not None) == (stage.shortcut == "padded")


WRONG_PATTERNS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"stages.*.fusoin.*": "add"}, '"stages.*.fusion.*"'),
    "a block too many": ({"stages.0.fusion.2": "add"}, '"stages.0.fusion.1"'),
    "misspelt choice": ({"stages.*.fusion.1": "multipl"}, '"stages.0.fusion.1": multiply'),
    "too wide": ({"stages.0.width": 1000}, '"stages.0.width": 16'),
    "between steps": ({"stages.0.width": 17}, '"stages.0.width": 16'),
    "text": ({"stages.*.width": "wide"}, '"stages.0.width": 16'),
    "too steep": ({"scaling.alpha": 1.5}, '"scaling.alpha": 1.2'),
    "not a number": ({"scaling.alpha": float("nan")}, '"scaling.alpha": 1.2'),
}


@pytest.mark.parametrize(("pattern", "fix"), WRONG_PATTERNS.values(), ids=WRONG_PATTERNS.keys())
def test_a_reference_that_asks_for_what_is_not_there(pattern: dict[str, Any], fix: str) -> None:
    document = _small()
    document["stages"][0]["depth"] = 2
    document["scaling"]["alpha"] = {"float": [1.0, 1.4]}
    with pytest.raises(DocumentError) as caught:
        parse_space({**document, "references": {"mine": pattern}}, name="small")
    assert caught.value.fix == fix


def test_a_pattern_may_be_of_what_other_choices_bring() -> None:
    document = _small()
    document["stages"][0]["fusion"]["choice"].append(
        {"kind": "aff", "reduction": {"choice": [2, 4]}}
    )
    document["references"] = {"all-add": {"stages.*.fusion.?": "add", "stages.*.reduction": 4}}
    assert parse_space(document, name="small").reference("all-add")


def test_a_misspelt_hole_is_named() -> None:
    document = yaml.safe_load(find_space("default").read_text())
    document["stem"]["width"] = {"integer": [16, 32]}
    with pytest.raises(DocumentError, match="integer") as caught:
        parse_space(document, name="mine")
    assert caught.value.where == "stem.width.integer"
