"""The command line from outside: messages, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nasfuse.cli.app import VERBS, main
from nasfuse.errors import UsageError
from nasfuse.terminal import parse_seconds

Cli = Callable[..., subprocess.CompletedProcess[str]]

MISTAKES = {
    "budget without unit": (["search", "--budget", "400"], 2, "'400' is not a budget"),
    "budget out of reach": (["search", "--budget", "1KMACs"], 4, "no network of the space"),
    "unknown space": (["search", "--budget", "4M", "--space", "defalt"], 3, "--space default"),
    "unknown data": (["search", "--budget", "4M", "--data", "smaple"], 3, "sample"),
    "unknown sampler": (["search", "--budget", "4M", "--sampler", "tpee"], 2, "tpe"),
    "misspelt sampler": (["search", "--budget", "4M", "--sampler", "gided"], 2, "--sampler guided"),
    "unknown objective": (["search", "--budget", "4M", "--objective", "flops"], 2, "--objective"),
    "parameters": (["search", "--budget", "4M", "--max-params", "10"], 4, "--max-params"),
    "latency unit": (["search", "--budget", "4M", "--max-latency", "5"], 2, "--max-latency 20ms"),
    "latency": (
        ["search", "--budget", "4M", "--max-latency", "0.001ms"],
        4,
        "at their smallest took",
    ),
    "front above": (["search", "--budget", "4M", "--front-from", "5M"], 2, "--front-from 4M"),
    "front unit": (["search", "--budget", "4M", "--front-from", "5"], 2, "--front-from 400MFLOPs"),
    "study with slash": (["search", "--budget", "4M", "--name", "a/b"], 2, "--name"),
    "a folder like a query": (
        ["search", "--budget", "4M", "--studies", "what?now"],
        2,
        "--tracking-uri",
    ),
    "no time": (["search", "--budget", "4M", "--time-limit", "soon"], 2, "--time-limit 30m"),
    "unknown option": (["search", "--bugdet", "4M"], 2, "--budget"),
    "no study": (["front"], 2, "there is no study yet"),
    "nothing to explain": (["explain", "x", "--swaps", "2"], 2, "there is no study 'x'"),
    "no such study": (["resume", "x"], 2, "there is no study 'x'"),
    "seed": (["search", "--budget", "1M", "--seed", "-1"], 2, "--seed"),
    "no gpu": (["search", "--budget", "1M", "--gpus-per-trial", "8"], 2, "GPUs"),
    "ray client": (["search", "--budget", "1M", "--ray-address", "ray://a:1"], 2, "client"),
    "data to check": (["data", "check", "smaple"], 3, "fix:   nasfuse data check sample\n"),
    "space to print": (["spaces", "defalt"], 3, "fix:   nasfuse spaces default\n"),
    "example": (["spaces", "defalt", "--example"], 3, "nasfuse spaces --example default\n"),
    "no architecture": (["cost", "none.json"], 3, "no architecture"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_explained(
    tmp_path: Path, cli: Cli, arguments: list[str], code: int, said: str
) -> None:
    run = cli(*arguments, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == [], "a mistake leaves nothing behind"


def test_dry_run_says_the_plan_and_writes_nothing(tmp_path: Path, cli: Cli) -> None:
    run = cli("search", "--budget", "4MFLOPs", "--trials", "9", "--dry-run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for words in (
        "sample",
        "10,000 training images",
        "4M MACs",
        "9 networks",
        "costs ",
        "disk ",
        "nothing was",
    ):
        assert words in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_spaces_and_cost(tmp_path: Path, cli: Cli) -> None:
    assert "default" in cli("spaces", cwd=tmp_path).stdout
    example = cli("spaces", "--example", cwd=tmp_path).stdout
    (tmp_path / "a.json").write_text(example)
    run = cli("cost", "a.json", "--json", cwd=tmp_path)
    price = json.loads(run.stdout)
    assert price["thop"] > price["macs"] > 0
    listing = cli("cost", "a.json", "--by-layer", cwd=tmp_path).stdout
    assert "stages.0.0" in listing
    assert f"{price['macs']:,} MACs" in listing


def test_help_names_every_verb_and_has_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["nasfuse", *arguments])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    listing = said("--help")
    assert said() == listing
    for verb in VERBS:
        about = said(verb.__name__, "--help")
        assert f"\n  {verb.__name__} " in listing
        assert f"Example: nasfuse {verb.__name__}" in about
        assert {"--verbose", "--quiet", "--json"} <= set(about.split()), verb.__name__


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("45", 45), ("1.5m", 90)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-3m", "m", "1d", "1h30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        parse_seconds(text)


def test_data_check_says_what_is_wrong_and_with_which_code(tmp_path: Path, cli: Cli) -> None:
    sound = cli("data", "check", "sample", "--json", cwd=tmp_path)
    assert sound.returncode == 0
    assert json.loads(sound.stdout)["counts"]["test"] == [200] * 10
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    run = cli("data", "check", "photos", cwd=tmp_path)
    assert run.returncode == 3
    assert "error[NF310]: 'cat' is the only class" in run.stdout
    assert "1 error, 0 warnings" in run.stdout
    document = json.loads(cli("data", "check", "photos", "--json", cwd=tmp_path).stdout)
    assert document["findings"][0]["level"] == "error"
    missing = cli("data", "check", "fotos", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "Traceback" not in missing.stderr
    assert "nasfuse data check photos/" in cli("data", "check", "--help", cwd=tmp_path).stdout
    listed = json.loads(cli("data", "names", "--json", cwd=tmp_path).stdout)["data"]
    text = "".join(cli("search", "--help", cwd=tmp_path).stdout.split())
    assert all(name in text for name in listed)
