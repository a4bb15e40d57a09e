"""The script that damages files: what it found once is refused now, and it can fail."""

from __future__ import annotations

import random
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nasfuse.errors import DocumentError, StorageError
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.results import read_results
from nasfuse.space import parse_space, read_space

SCRIPT = Path(__file__).parent.parent / "scripts" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_damaged_documents_are_refused_or_read(fuzz: dict[str, Any], tmp_path: Path) -> None:
    seen = fuzz["attack"](fuzz["light"](tmp_path), 50, random.Random(1))
    assert not seen["broken"]
    assert min(seen["read"], seen["refused"]) > 4


def test_many_documents_with_other_values_can_be_read(fuzz: dict[str, Any], tmp_path: Path) -> None:
    """Damaged bytes are refused at parsing, and nothing is learnt of what uses the values."""
    path, generator, seen = tmp_path / "recipe.json", random.Random(0), Counter[bool]()
    content = Recipe().model_dump_json().encode()
    for _ in range(100):
        changed = fuzz["_other_values"](path, content, generator)
        assert changed != content
        path.write_bytes(changed)
        try:
            seen[read_recipe(path) != Recipe()] += 1
        except DocumentError:
            seen[False] += 1
    assert 30 < seen[True] < 90


def test_a_reader_that_breaks_is_noticed(fuzz: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1: 1")

    def read(path: Path) -> None:
        if path.read_bytes() != b"1: 1":
            raise ValueError("not ours")

    seen = fuzz["attack"]({path: read}, 5, random.Random(0))
    assert seen["broken"]
    assert path.read_text() == "1: 1"


@pytest.mark.parametrize("line", [b"\xff", b"[" * 100_000, b"{}", b'{"key": "\\ud800"}', b""])
def test_lines_that_are_no_results(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "results.jsonl").write_bytes(line + b"\n")
    with pytest.raises(StorageError, match="this result is damaged") as caught:
        read_results(tmp_path / "results.jsonl")
    assert caught.value.where.endswith("line 1")
    (tmp_path / "results.jsonl").write_bytes(line)
    assert not read_results(tmp_path / "results.jsonl"), "a torn line, whatever is in it"


@pytest.mark.parametrize(
    "hole",
    [
        {"choice": ["add", ["add"]]},
        {"choice": ["add", {"kind": ["a"]}]},
        {"choice": ["add"], "when": {"block": [["a"]]}},
        {"choice": ["add"], 3: 4},
    ],
)
def test_holes_of_lists_are_refused(hole: dict[Any, Any]) -> None:
    document = {**read_space("default"), "activation": hole}
    with pytest.raises(DocumentError):
        parse_space(document, name="a test")
