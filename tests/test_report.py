"""The report: what it computes, and what it writes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasfuse.curves import COSTS, growth, repeated, ticks
from nasfuse.errors import StorageError
from nasfuse.hand_made import hand_made, html_section, markdown_section
from nasfuse.report import draw, front_rows, summarise, write_report
from nasfuse.results import Result
from nasfuse.summary import SCATTER, conclusion, fusion_text, sentences
from nasfuse.tables import markdown_table

BUDGET = 100_000_000
MakeResult = Callable[..., Result]


@pytest.fixture
def study(make_result: MakeResult) -> list[Result]:
    """Two uniform references and four trials on rung 0; three of them on rung 1; one failure."""

    def make(number: int, rung: int, accuracy: float, **more: Any) -> Result:
        macs = (number + 1) * 10_000_000
        costs = {"macs": macs, "params": 900 - number, "thop": macs + 1000}
        return make_result(number, rung=rung, accuracy=accuracy, **costs, **more)

    return [
        make(0, 0, 0.90, origin="all-add"),
        make(1, 0, 0.30, origin="all-concat"),
        make(2, 0, 0.40),
        make(3, 0, 0.45),
        make_result(4, status="failed", accuracy=None, loss=None, cause="out of memory"),
        make(0, 1, 0.60, origin="all-add"),
        make(1, 1, 0.58, origin="all-concat"),
        make(3, 1, 0.72),
    ]


def test_only_the_highest_rung_counts(study: list[Result]) -> None:
    summary = summarise(study, budget=BUDGET, validation=2000)
    assert [row.number for row in front_rows(study)] == [0, 3]
    assert summary.rung == 1
    assert summary.best is not None
    assert summary.best.accuracy == 0.72  # and not the 0.90 of rung 0
    assert summary.counts == {(0, "complete"): 4, (0, "failed"): 1, (1, "complete"): 3}


def test_gain_over_the_best_hand_made_network(study: list[Result]) -> None:
    summary = summarise(study, budget=BUDGET, validation=2000)
    assert summary.gain == pytest.approx(12.0)
    assert "12.00 points above" in " ".join(sentences(summary))
    assert str(SCATTER) in " ".join(sentences(summary))


def test_it_says_what_the_trainings_took(make_result: MakeResult) -> None:
    pair = [
        make_result(n, seconds=10.0, cpu_seconds=7.0, gpus=gpus)
        for n, gpus in ((0, None), (1, 0.25))
    ]
    said = sentences(summarise(pair, budget=BUDGET, validation=2000))[-1]
    assert said.startswith("Cost: 2 trainings took 14 CPU-seconds and 2 GPU-seconds, 20 seconds")
    assert "MPS" not in said
    assert "memory" not in said
    pair[1] = pair[1].model_copy(update={"mps": True, "retry": "OutOfMemoryError", "batch": 32})
    said = sentences(summarise(pair, budget=BUDGET, validation=2000))[-1]
    assert "2 GPU-seconds (shared by MPS), 20 seconds" in said
    assert said.endswith("1 ran out of memory and began again with half the batch.")


def test_one_network_alone_wins_nothing_and_awaits_nothing(make_result: MakeResult) -> None:
    alone = [make_result(0, rung=2, repeat=repeat) for repeat in range(4)]
    for results, words in ((alone, "none to compare it with"), (alone[:1], "3 more times each")):
        summary = summarise(results, budget=BUDGET, validation=2000)
        assert words in conclusion(summary)[-1]
        assert words in sentences(summary)[0]


def test_a_difference_within_the_scatter_is_none(make_result: MakeResult) -> None:
    """On 2,000 images that is about three points at an accuracy of one half."""
    pair = [make_result(0, origin="all-add", accuracy=0.5), make_result(1, accuracy=0.53)]
    assert "No difference can be claimed" in " ".join(
        sentences(summarise(pair, budget=BUDGET, validation=2000))
    )


def test_hypervolume_never_falls(study: list[Result]) -> None:
    history = summarise(study, budget=BUDGET, validation=2000).history
    assert history == sorted(history)
    assert history[0] == pytest.approx(0.60 * 0.9)
    assert history[-1] == pytest.approx(0.60 * 0.9 + 0.12 * 0.6)


def test_fusions_in_short(study: list[Result]) -> None:
    assert fusion_text(study[0].architecture) == "add aff | concat"


def test_equal_fusions_are_counted(document: dict[str, Any], make_result: MakeResult) -> None:
    document["stages"][0] |= {"depth": 4, "fusion": "gated"}
    assert fusion_text(make_result(0, architecture=document).architecture) == "gated x4 | concat"


def test_rungs_are_never_in_one_trace(study: list[Result]) -> None:
    drawn = {trace["name"]: trace for trace in draw(study, BUDGET)["data"]}
    assert drawn["rung 0 (not comparable)"]["visible"] == "legendonly"
    assert drawn["rung 0 (not comparable)"]["mode"] == "markers"
    assert drawn["trials"]["y"] == [72.0]
    assert drawn["hand-made"]["y"] == pytest.approx([60.0, 58.0])


def test_every_cost_has_its_own_front(study: list[Result]) -> None:
    figure = draw(study, BUDGET)
    fronts = [trace["y"] for trace in figure["data"] if trace["name"] == "front"]
    assert fronts == [[60.0, 72.0], [72.0], [60.0, 72.0]]
    for button in figure["layout"]["updatemenus"][0]["buttons"]:
        assert len(button["args"][0]["x"]) == len(figure["data"])
        budgeted = button["label"] != "parameters"
        assert sum(v is True for v in button["args"][0]["visible"]) == 3 + budgeted


def test_budget_is_a_trace_and_no_shape(study: list[Result]) -> None:
    figure = draw(study, BUDGET)
    assert "shapes" not in figure["layout"]
    assert figure["data"][-1]["x"] == [100.0, 100.0]


def test_files(study: list[Result], tmp_path: Path) -> None:
    write_report(
        tmp_path / "report", study, summarise(study, budget=BUDGET, validation=2000), title="demo"
    )
    files = {path.name: path for path in (tmp_path / "report").iterdir()}
    assert sorted(files) == ["front.csv", "front.html", "front.png", "report.md"]
    assert files["front.html"].stat().st_size < 6_000_000
    assert files["front.png"].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(files["front.csv"].open()))
    assert [(row["number"], row["macs"]) for row in rows] == [("0", "10000000"), ("3", "40000000")]


def test_page_fetches_nothing(study: list[Result], tmp_path: Path) -> None:
    write_report(tmp_path, study, summarise(study, budget=BUDGET, validation=2000), title="demo")
    page = (tmp_path / "front.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)=", page)


@pytest.mark.parametrize("count", [0, 1])
def test_few_results(study: list[Result], tmp_path: Path, count: int) -> None:
    write_report(
        tmp_path,
        study[:count],
        summarise(study[:count], budget=BUDGET, validation=2000),
        title="demo",
    )
    said = "No evaluation is complete yet" in (tmp_path / "report.md").read_text()
    assert said == (count == 0)
    assert len((tmp_path / "front.csv").read_text().splitlines()) == 1 + count


def test_text_from_outside_is_escaped(make_result: MakeResult, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    results = [make_result(0, origin=evil), make_result(1, origin="all-" + evil, accuracy=0.4)]
    write_report(tmp_path, results, summarise(results, budget=BUDGET, validation=2000), title=evil)
    assert "alert(1)</script>" not in (tmp_path / "front.html").read_text()
    assert "<script>" not in (tmp_path / "report.md").read_text()
    assert evil not in json.dumps(draw(results, BUDGET))


def test_a_bar_does_not_split_a_table_cell(study: list[Result]) -> None:
    head, _, first, *_ = markdown_table(front_rows(study)).splitlines()
    assert head.count("|") == first.count("|")


def test_a_folder_that_cannot_be_written(study: list[Result], tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(
            tmp_path / "report",
            study,
            summarise(study, budget=BUDGET, validation=2000),
            title="demo",
        )


@pytest.mark.parametrize("objective", ["params", "latency"])
def test_another_objective_is_drawn_first(
    make_result: MakeResult, tmp_path: Path, objective: str
) -> None:
    results = [
        make_result(
            n, objective=objective, accuracy=0.9 - n / 10, latency=5.0 - n, params=10 * n + 1
        )
        for n in range(3)
    ]
    figure = draw(results, budget=1000)
    assert figure["layout"]["updatemenus"][0]["buttons"][0]["label"] == COSTS[objective].name
    expected = [2, 1, 0] if objective == "latency" else [0]
    assert [row.number for row in front_rows(results)] == expected
    write_report(tmp_path, results, summarise(results, budget=1000, validation=100), title="t")
    assert 0 < summarise(results, budget=1000, validation=100).hypervolume < 1


def test_finals_have_bars_of_their_seeds(make_result: MakeResult) -> None:
    results = [
        make_result(n, rung=1, repeat=repeat, macs=1e6 * (n + 1), accuracy=accuracy + n / 10)
        for n in range(2)
        for repeat, accuracy in enumerate((0.6, 0.5, 0.52, 0.54))
    ]
    summary = summarise(results, budget=BUDGET, validation=2000)
    traces = draw(results, BUDGET, repeated(summary.verdict))["data"]
    finals = next(trace for trace in traces if trace["name"].startswith("finals"))
    assert sorted(finals["y"]) == pytest.approx([52.0, 62.0])
    assert finals["error_y"]["array"] == pytest.approx([2.0, 2.0])
    assert sorted(finals["x"]) == [1.0, 2.0]
    assert "3 fresh seeds" in finals["hovertext"][0]


def test_two_searches_grow_in_one_box(make_result: MakeResult) -> None:
    """Each full training counts when it ended: after as many networks as were tried by then."""
    mine = [
        make_result(0, rung=0),
        make_result(0, rung=1, accuracy=0.5, macs=BUDGET // 2),
        make_result(1, rung=0),
        make_result(1, rung=1, repeat=1, accuracy=0.9, macs=BUDGET // 2),
        make_result(2, rung=1, accuracy=0.8, macs=BUDGET // 2),
    ]
    own, other = growth(mine, [make_result(0, rung=1, accuracy=0.4, macs=1)], budget=BUDGET)
    assert own.tried == [1, 3]
    assert own.volumes == pytest.approx([0.25, 0.4])
    assert other.tried == [1]
    assert other.volumes == pytest.approx([0.4])


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(2, 60, [2, 5, 10, 20, 50]), (1.8, 2.0, [1.8, 1.85, 1.9, 1.95, 2.0]), (0.004, 0.1, [0.01])],
)
def test_ticks_are_round_numbers(low: float, high: float, inside: list[float]) -> None:
    marks = ticks(low, high)
    assert set(inside) <= set(marks)
    assert 3 <= sum(low <= mark <= high for mark in marks) <= 8


def test_all_hand_made_networks_are_shown(study: list[Result]) -> None:
    """Also those that were stopped, each with the accuracy of the rungs that it reached."""
    stopped = study[:5] + study[6:]
    header, *lines = hand_made(stopped)
    assert header[4:6] == ["rung 0", "rung 1"]
    assert [(line[0], *line[4:6]) for line in lines] == [
        ("all-add", "90.00%", ""),
        ("all-concat", "30.00%", "58.00%"),
    ]
    assert "<td>all-add</td>" in html_section(stopped)
    assert "| all-concat | 1 |" in markdown_section(stopped)
    assert not hand_made(stopped[2:4])
    assert html_section([]) == markdown_section([]) == ""
