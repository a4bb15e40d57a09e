"""Verbs that look at a study, and how a command ends: pipes, colours, odd paths, our own bugs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nasfuse.cli.app as command_line
from nasfuse.machine import examine
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study
from nasfuse.tables import csv_table

MakeResult = Callable[..., Result]
MakeSettings = Callable[..., Settings]
Nasfuse = Callable[..., tuple[int, str, str]]
FOLDER = "meine Studien ✓"


@pytest.fixture
def study(tmp_path: Path, make_result: MakeResult, make_settings: MakeSettings) -> Study:
    """Three networks on rung 0, two of them on the top rung, one failure; names that are odd."""
    settings = make_settings("größe 1", trials=9)
    study = Study.create(tmp_path / FOLDER / "größe 1", settings)
    results = [
        make_result(0, accuracy=0.5),
        make_result(1, accuracy=0.6, macs=900_000),
        make_result(2, status="failed", accuracy=None, loss=None, cause="out of\nmemory"),
        make_result(0, rung=2, accuracy=0.7, macs=400_000),
        make_result(1, rung=2, accuracy=0.8, macs=900_000),
    ]
    for result in results:
        study.record(result)
    return study


@pytest.fixture
def nasfuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Nasfuse:
    """The command in this process: exit code, stdout and stderr."""
    monkeypatch.setenv("NASFUSE_STUDIES", str(tmp_path / FOLDER))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nasfuse", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def outside(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "nasfuse", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_status(study: Study, nasfuse: Nasfuse) -> None:
    code, said, _ = nasfuse("status")
    assert code == 0
    for words in ("no search runs", "3 of 9 networks", "1 failed", "0.8000", "out of memory"):
        assert words in said
    _, said, _ = nasfuse("status", "größe 1", "--json")
    document = json.loads(said)
    assert document["running"] is False
    assert document["rungs"] == {"0": {"complete": 2, "failed": 1}, "2": {"complete": 2}}


def test_a_running_search_is_asked_to_stop(study: Study, nasfuse: Nasfuse) -> None:
    assert "nothing to stop" in nasfuse("stop")[1]
    with study.locked():
        assert not study.asked_to_stop
        assert f"process {os.getpid()}" in nasfuse("status")[1]
        code, said, _ = nasfuse("stop", "größe 1")
        assert code == 0
        assert "nasfuse resume 'größe 1'" in said
        assert study.asked_to_stop
    with study.locked():
        assert not study.asked_to_stop, "what was asked of one search is not asked of the next"
    assert study.searcher is None


def test_a_killed_search_does_not_count_as_running(study: Study) -> None:
    (study.folder / "study.pid").write_text(str(os.getpid()))
    assert study.searcher is None


def test_the_front_as_csv_and_json(study: Study, nasfuse: Nasfuse) -> None:
    _, said, _ = nasfuse("front", "--csv")
    rows = list(csv.DictReader(io.StringIO(said)))
    assert [(row["number"], row["accuracy"]) for row in rows] == [("0", "0.7"), ("1", "0.8")]
    _, said, _ = nasfuse("front", "--json")
    assert [row["number"] for row in json.loads(said)["front"]] == [0, 1]
    assert nasfuse("front", "--json", "--csv")[0] == 2
    assert csv_table([]).count("\n") == 1


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ([], 1),
        (["best"], 1),
        (["0"], 0),
        (["größe 1"], 1),
        (["größe 1", "0"], 0),
        (["0", "--study", "größe 1"], 0),
    ],
)
def test_a_study_and_a_trial(study: Study, nasfuse: Nasfuse, words: list[str], number: int) -> None:
    code, said, _ = nasfuse("show", *words, "--json")
    assert code == 0
    document = json.loads(said)
    assert (document["schema_version"], document["number"]) == (1, number)
    assert f"trial     {number} of größe 1" in nasfuse("show", *words)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status -q", r"study    größe 1: no search runs in it\n"),
        ("show 0 -q", r".*/größe 1/trials/\w+\n"),
        ("stop -q", r""),
        ("spaces -q", r"cifar\n([a-z]+\n)+"),
        ("data names -q", r"sample\n([a-z0-9-]+\n)+"),
        ("cost resnet20 -q", r"40551040\n"),
    ],
)
def test_quiet_is_only_the_result(study: Study, nasfuse: Nasfuse, words: str, said: str) -> None:
    code, out, _ = nasfuse(*words.split())
    assert code == 0
    assert re.fullmatch(said, out)


def test_a_word_too_many(study: Study, nasfuse: Nasfuse) -> None:
    code, _, said = nasfuse("show", "größe 1", "0", "1", "2", "--studies", FOLDER)
    assert code == 2
    assert f"fix:   nasfuse show --studies '{FOLDER}' 'größe 1' 0\n" in said
    assert "fix:   nasfuse show a 0\n" in nasfuse("show", "0", "1", "--study", "a")[2]
    assert "fix:   nasfuse train a 0\n" in nasfuse("train", "a", "0", "--trial", "1")[2]
    export = ["export", "a", "0", "1", "--out", "n t"]
    assert "fix:   nasfuse export --out 'n t' a 0\n" in nasfuse(*export)[2]
    assert "fix:   nasfuse show 'größe 1'\n" in nasfuse("show", "grösse 1")[2]
    assert "fix:   nasfuse show best\n" in nasfuse("show", "bset")[2]
    assert nasfuse("show", "größe 2", "0")[2].count("größe 1") == 2


def test_a_bug_leaves_its_traceback_in_a_file(
    study: Study, nasfuse: Nasfuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (study.folder / "study.yaml").write_bytes(b"\xff\xfe")  # a mistake of the user's
    code, _, said = nasfuse("front")
    assert code == 8
    assert "Traceback" not in said
    code, _, said = nasfuse("front", "-v")
    assert "Traceback" in said
    assert said.rstrip().splitlines()[-1].startswith("  why:")

    def broken(folder: Path) -> Study:
        raise ZeroDivisionError("no one foresaw this")

    monkeypatch.setattr(Study, "open", broken)
    code, _, said = nasfuse("front")
    assert code == 1
    assert "Traceback" not in said
    assert "nasfuse doctor" in said
    [report] = tmp_path.glob("nasfuse-error-*.txt")
    assert str(report) in said
    assert "ZeroDivisionError: no one foresaw this" in report.read_text(encoding="utf-8")


def test_a_full_disk_is_no_bug(
    study: Study, nasfuse: Nasfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> Study:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(Study, "open", full)
    code, _, said = nasfuse("front")
    assert code == 8
    assert "the disk is full" in said


def test_without_a_terminal_there_are_no_colours_and_lines_fit(
    study: Study, tmp_path: Path
) -> None:
    folder = str(tmp_path / FOLDER)
    run = outside("front", cwd=tmp_path, NASFUSE_STUDIES=folder, COLUMNS="80", NO_COLOR="1")
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80


def test_a_reader_that_leaves_is_no_failure(study: Study, tmp_path: Path) -> None:
    for verb in ("spaces", "front", "--help"):
        command = f"'{sys.executable}' -m nasfuse {verb} | true; exit ${{PIPESTATUS[0]}}"
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "NASFUSE_STUDIES": str(tmp_path / FOLDER)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, ""), verb


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("nasfuse fro", "front"),
        ("nasfuse search --sam", "--sampler"),
        ("nasfuse search --sampler ev", "evolution"),
        ("nasfuse search --space mo", "mobile"),
        ("nasfuse cost densenet1", "densenet121"),
        ("nasfuse front gr", "größe 1"),
        ("nasfuse show b", "best"),
    ],
)
def test_a_shell_completes(study: Study, tmp_path: Path, words: str, offered: str) -> None:
    run = outside(
        cwd=tmp_path,
        NASFUSE_STUDIES=str(tmp_path / FOLDER),
        _NASFUSE_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert offered in run.stdout, run.stderr


def test_the_doctor_finds_what_a_search_needs(
    nasfuse: Nasfuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = nasfuse("doctor", "--json")
    document = json.loads(said)
    assert (code, document["sound"]) == (0, True)
    subjects = {finding["subject"] for finding in document["findings"]}
    assert {"nasfuse", "package", "cpu", "gpu", "memory", "disk", "data"} <= subjects
    monkeypatch.setattr("nasfuse.machine._version", lambda name: None if name == "ray" else "99")
    broken = [finding for finding in examine(tmp_path) if finding.broken]
    assert any("ray is missing" in finding.text for finding in broken)
    assert any("torch 99 is not" in finding.text for finding in broken)
    assert nasfuse("doctor")[0] == 5
