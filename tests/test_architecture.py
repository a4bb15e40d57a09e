from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nasfuse.architecture import Architecture, parse_architecture, read_architecture
from nasfuse.errors import DocumentError


def test_round_trip_keeps_the_key(architecture: Architecture) -> None:
    again = parse_architecture(json.loads(architecture.to_json()), where="")
    assert again == architecture
    assert again.key == architecture.key
    assert len(again.key) == 12


def test_one_fusion_stands_for_equal_ones(document: dict[str, Any]) -> None:
    short, long = json.loads(json.dumps(document)), json.loads(json.dumps(document))
    short["stages"][0]["fusion"] = "add"
    long["stages"][0]["fusion"] = [{"kind": "add"}, {"kind": "add"}]
    assert parse_architecture(short, where="").key == parse_architecture(long, where="").key


def test_architectures_are_frozen(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="frozen"):
        architecture.resolution = 5


WRONG: dict[str, tuple[list[str | int], object, str]] = {
    "unknown field": (["colour"], "red", "colour"),
    "unknown fusion": (["stages", 0, "fusion", 0], "sum", "stages.0.fusion.0"),
    "text for a number": (["stages", 0, "width"], "8", "stages.0.width"),
    "true for a number": (["stages", 0, "width"], True, "stages.0.width"),
    "float for a number": (["stages", 0, "width"], 8.0, "stages.0.width"),
    "no width": (["stages", 0, "width"], None, "stages.0"),
    "growth without concat": (["stages", 0, "growth"], 8, "stages.0"),
    "too many fusions": (["stages", 0, "depth"], 1, "stages.0"),
    "huge depth": (["stages", 0, "depth"], 10**9, "stages.0.depth"),
    "even kernel": (["stages", 0, "block", "kernel"], 4, "stages.0.block"),
    "starving map": (["resolution"], 4, "the document"),
    "no stages": (["stages"], [], "stages"),
    "indivisible groups": (
        ["stages", 0, "block"],
        {"kind": "bottleneck", "kernel": 3, "inner": 0.5, "groups": 3},
        "stages.0",
    ),
    "groups twice": (
        ["stages", 0, "block"],
        {"kind": "bottleneck", "kernel": 3, "inner": 0.5, "groups": 2, "group_width": 2},
        "stages.0",
    ),
    "bad reduction": (
        ["stages", 0, "fusion", 0],
        {"kind": "se", "reduction": 0},
        "stages.0.fusion",
    ),
    "no reduction": (["stages", 0, "fusion", 0], "aff", "stages.0.fusion"),
    "pooled without stride": (["stages", 0, "shortcut"], "pooled", "stages.0"),
    "odd split": (["stages", 0, "cross"], {"expand": 7, "output": 8}, "stages.0.cross.expand"),
    "levels without stages": (
        ["neck"],
        {"kind": "fpn", "levels": 5, "width": 8, "fusion": "add"},
        "the document",
    ),
    "a neck that grows": (
        ["neck"],
        {"kind": "fpn", "levels": 2, "width": 8, "fusion": "concat"},
        "neck",
    ),
    "groups of a cross stage": (
        ["stages", 1],
        {
            "depth": 1,
            "stride": 2,
            "block": {"kind": "bottleneck", "kernel": 3, "inner": 1.0, "groups": 16},
            "fusion": "add",
            "width": 16,
            "cross": {"expand": 32, "output": 16},
        },
        "the document",
    ),
    "head for one map": (["neck"], {"kind": "late", "levels": 2}, "the document"),
}


@pytest.mark.parametrize(("path", "value", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(
    document: dict[str, Any], path: list[Any], value: object, named: str
) -> None:
    if path == ["resolution"]:
        document["stages"][0]["stride"] = 2
    target: Any = document
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(DocumentError) as caught:
        parse_architecture(document, where="some.yaml")
    assert named in caught.value.what
    assert caught.value.where == "some.yaml"


@pytest.mark.parametrize("text", ["{", "[1, 2", "!!python/object:os.system {}", "\x00", "- a\nb"])
def test_files_that_are_no_documents(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError):
        read_architecture(path)


def test_files_that_are_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read"):
        read_architecture(tmp_path / "none.json")
    (tmp_path / "large.json").write_text(" " * 1_000_001)
    with pytest.raises(DocumentError, match="too large"):
        read_architecture(tmp_path / "large.json")
