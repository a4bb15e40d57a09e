"""A study beside a random search for the same, and the command that runs one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasfuse.commands import random_search
from nasfuse.comparison import beside
from nasfuse.recipe import Recipe
from nasfuse.report import write_report
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study
from nasfuse.space import read_space
from nasfuse.summary import summarise

MakeResult = Callable[..., Result]


def create(studies: Path, name: str, **changes: Any) -> Study:
    settings = Settings(
        id=f"{hash(name) % 10**9:016x}",
        name=name,
        space_name="default",
        space=read_space("default"),
        budget=1_234_567,
        data="my photos",
        side=64,
        validation=2000,
        fingerprint="0" * 12,
        classes=("<script>alert(1)</script>", "b"),
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        sampler="guided",
        seed=3,
        tracking_uri=None,
        versions={"nasfuse": "0"},
        trials=9,
    )
    return Study.create(studies / name, settings.model_copy(update=changes))


def test_only_a_random_search_for_the_same_is_set_beside(
    tmp_path: Path, make_result: MakeResult
) -> None:
    study = create(tmp_path, "mine")
    create(tmp_path, "not random").record(make_result(0, accuracy=0.9))
    other = create(tmp_path, "other budget", sampler="random", budget=7)
    other.record(make_result(0, accuracy=0.8))
    create(tmp_path, "damaged")
    (tmp_path / "damaged" / "study.yaml").write_text("version: 99")
    nobody = beside(study)
    assert nobody.random == []
    assert "No random search" in nobody.hint
    assert "--sampler random" in nobody.make
    short = create(tmp_path, "short", sampler="random", seed=8)
    short.record(make_result(0, accuracy=0.1))
    longer = create(tmp_path, "longer", sampler="random", trials=99)
    for number in range(2):
        longer.record(make_result(number, accuracy=0.2))
    found = beside(study)
    assert [result.accuracy for result in found.random] == [0.2, 0.2]
    assert (found.hint, found.make) == ("", "")
    assert beside(longer).random == []
    broken = create(tmp_path, "broken", sampler="random", trials=999)
    (broken.folder / "results.jsonl").write_text("{}\n")
    assert beside(study).random == found.random


def test_the_command_asks_for_the_same(tmp_path: Path) -> None:
    words = shlex.split(random_search(create(tmp_path, "mine")))
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--sampler"] == "random"
    assert options["--budget"] == "1234567MACs"
    assert (options["--data"], options["--space"]) == ("my photos", "default")
    assert (options["--trials"], options["--epochs"], options["--seed"]) == ("9", "1", "3")
    assert options["--studies"] == str(tmp_path)
    wild = create(tmp_path, "wild", recipe=Recipe(rate=1.0), budget=2_000_000, seconds=90.0)
    command = random_search(wild)
    assert "--budget 2MMACs" in command
    assert "--recipe FILE" in command
    assert "--time-limit 90s" in command


def test_the_command_that_shows_a_network_can_be_pasted(tmp_path: Path) -> None:
    study = create(tmp_path, "a; touch b")
    options = ["--studies", str(tmp_path)]
    assert shlex.split(beside(study).show) == ["nasfuse", "show", *options, "a; touch b"]


def test_the_page_says_it_escaped(tmp_path: Path, make_result: MakeResult) -> None:
    study = create(tmp_path, "a <b>", data="<script>alert(1)</script>")
    results = [make_result(n, accuracy=0.5 + n / 10) for n in range(2)]
    write_report(
        tmp_path / "r",
        results,
        summarise(results, budget=10**8, validation=100),
        title="t",
        compared=beside(study),
    )
    page = (tmp_path / "r" / "front.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "--sampler random" in page
    assert "nasfuse show" in page
