"""What is said and drawn of fusions: whole files, honest words, everything escaped."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nasfuse.effects import Effect
from nasfuse.fusion_map import Cell, FusionMap, Interaction
from nasfuse.fusion_report import fusion_section, write_fusions
from nasfuse.fusion_words import Swapped, document, map_sentences, swap_sentences
from nasfuse.results import Result
from nasfuse.swaps import Comparison, Swap

MakeResult = Callable[..., Result]

SURE, OPEN = Effect(0.02, 0.01, 0.03, 0.0004), Effect(-0.001, -0.02, 0.018, 0.9)
CELLS = (
    Cell("stages.0 first", "add", 20, 3, SURE, 0.0008),
    Cell("stages.0 first", "aff", 9, 0, OPEN, 0.9),
    Cell("stages.0 first", "max", 2, 1),
)
PAIR = Interaction(("stages.0 first", "add"), ("stages.1", "aff"), SURE, 0.02)
LEVEL = "first and inner skips of each stage"


@pytest.fixture
def found() -> FusionMap:
    return FusionMap(31, 4, ("stages.0 first",), CELLS, LEVEL, 2, (PAIR,), 7)


@pytest.fixture
def silent() -> FusionMap:
    cells = tuple(Cell(cell.place, cell.fusion, 2, 1) for cell in CELLS)
    return FusionMap(6, 2, ("stages.0 first",), cells, None, 0, (), 0)


@pytest.fixture
def swapped(make_result: MakeResult) -> Swapped:
    original = make_result(5)

    def compared(skip: int, new: str, effect: Effect | None, adjusted: float) -> Comparison:
        swap = Swap(0, skip, "add", new, original.architecture)
        return Comparison(swap, 5, effect, adjusted)

    return Swapped(
        original,
        [
            compared(0, "aff", SURE, 0.003),
            compared(0, "max", OPEN, 1.0),
            compared(1, "aff", Effect(-0.02, -0.03, -0.01, 0.0001), 0.002),
            compared(1, "max", OPEN, 1.0),
            compared(2, "max", OPEN, 1.0),
        ],
    )


def test_files(found: FusionMap, swapped: Swapped, tmp_path: Path) -> None:
    write_fusions(tmp_path, found, [swapped], title="demo <b>")
    names = {path.name for path in tmp_path.iterdir()}
    tables = {"fusion_map.csv", "fusion_swaps.csv"}
    assert names == {"fusion_map.png", "fusion_swaps.png", "fusions.html", *tables}
    assert (tmp_path / "fusion_map.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "fusions.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "demo <b>" not in page
    rows = list(csv.DictReader((tmp_path / "fusion_map.csv").open()))
    assert [(row["fusion"], row["effect"]) for row in rows] == [
        ("add", "0.02"),
        ("aff", "-0.001"),
        ("max", ""),
    ]


def test_without_effects_there_are_only_counts(silent: FusionMap, tmp_path: Path) -> None:
    write_fusions(tmp_path, silent, [], title="demo")
    assert not (tmp_path / "fusion_swaps.csv").exists()
    said = " ".join(map_sentences(silent))
    assert "Too little data" in said
    assert "points" not in said


def test_a_space_without_a_choice_says_nothing(tmp_path: Path) -> None:
    empty = FusionMap(6, 2, (), (), None, 0, (), 0)
    write_fusions(tmp_path, empty, [], title="demo")
    assert list(tmp_path.iterdir()) == []
    assert fusion_section(empty, []) == ""


def test_words_say_what_is_shown_and_how_much_was_asked(found: FusionMap) -> None:
    said = " ".join(map_sentences(found))
    assert "stages.0 first: add +2.00 points (+1.00 to +3.00)" in said
    assert "2 comparisons" in said
    assert "aff -0.10" not in said
    assert "Interactions of 7 pairs" in said
    assert "add at stages.0 first with aff at stages.1" in said
    section = fusion_section(found, [])
    assert "![fusion map](fusion_map.png)" in section
    assert "| stages.0 first | max | 1 / 2 |  |  | too few |" in section


def test_swaps_say_which_skip_wants_what_and_where_it_does_not_matter(swapped: Swapped) -> None:
    _, needed, wants, keeps, open_ = swap_sentences(swapped)
    assert re.search(r"about \d\.\d\d points would show", needed)
    assert wants.startswith("stages.0.fusion.0 wants aff instead of add: +2.00")
    assert keeps.startswith("stages.0.fusion.1 wants add: aff -2.00")
    assert "no difference is shown to max" in keeps
    assert open_.startswith("stages.0.fusion.2: no difference is shown between add and max")
    assert "the intervals reach 2.00 points" in open_


def test_everything_as_json(found: FusionMap, swapped: Swapped) -> None:
    whole = json.loads(json.dumps(document(found, [swapped])))
    assert whole["comparisons"] == 2
    assert whole["map"][0]["p_holm"] == 0.0008
    assert whole["swaps"][0]["instead"] == "aff"
    assert whole["interactions"][0]["effect"] == 0.02


def test_text_from_outside_is_escaped(swapped: Swapped, tmp_path: Path) -> None:
    evil = "</title><script>alert(1)</script><img src=x onerror=alert(1)>"
    cells = tuple(Cell(evil, fusion, 20, 3, SURE, 0.0008) for fusion in ("add", evil))
    pair = Interaction((evil, "add"), (evil, evil), SURE, 0.02)
    found = FusionMap(31, 4, (evil,), cells, evil, 2, (pair,), 7)
    write_fusions(tmp_path, found, [swapped], title=evil)
    page = (tmp_path / "fusions.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    for text in (page, fusion_section(found, [swapped])):
        assert "<script" not in text
        assert "<img src=x" not in text
