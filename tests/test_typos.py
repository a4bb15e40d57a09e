"""Thirty misspellings, each with the name that was meant; in one process, for speed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nasfuse.cli.app import main
from nasfuse.space import find_space

SEARCH = ["search", "--budget", "4M", "--dry-run"]

TYPOS: dict[str, tuple[list[str], str]] = {
    # verbs
    "serch": (["serch", "--budget", "4M"], "nasfuse search --budget 4M"),
    "resum": (["resum"], "nasfuse resume"),
    "frnt": (["frnt"], "nasfuse front"),
    "shwo": (["shwo"], "nasfuse show"),
    "exprot": (["exprot", "--out", "a b"], "nasfuse export --out 'a b'"),
    "Cost": (["Cost", "resnet50"], "nasfuse cost resnet50"),
    "data chekc": (["data", "chekc", "x"], "nasfuse data check x"),
    "docter": (["docter"], "nasfuse doctor"),
    "stauts": (["stauts"], "nasfuse status"),
    # options
    "--bugdet": (["search", "--bugdet=4M"], "nasfuse search --budget=4M"),
    "--trails": ([*SEARCH, "--trails", "9"], "--trials 9"),
    "--time_limit": ([*SEARCH, "--time_limit", "9s"], "--time-limit 9s"),
    "--sapce": ([*SEARCH, "--sapce", "cifar"], "--space cifar"),
    "--worker": ([*SEARCH, "--worker", "2"], "--workers 2"),
    "--max-param": ([*SEARCH, "--max-param", "5M"], "--max-params 5M"),
    "--jsn": (["front", "--jsn"], "nasfuse front --json"),
    "--by-layr": (["cost", "resnet50", "--by-layr"], "--by-layer"),
    # in front of the verb
    "--json status": (["--json", "status"], "nasfuse status --json"),
    "-q and -v": (["-qv", "search", "--budget", "4M"], "nasfuse search -qv --budget 4M"),
    "--jsn data": (["--jsn", "data", "check", "x"], "nasfuse data check --json x"),
    "data --json": (["data", "--json", "check", "x"], "nasfuse data check --json x"),
    "--studies": (["--studies", "a b", "stop", "c"], "nasfuse stop --studies 'a b' c"),
    "--studies=": (["--studies=a", "stop", "c"], "nasfuse stop --studies=a c"),
    "--versoin": (["--versoin", "status"], "nasfuse --version status"),
    # values
    "budget without one": (["search", "--budget"], "nasfuse search --budget 400MFLOPs"),
    "space defalt": ([*SEARCH, "--space", "defalt"], "--space default"),
    "space Cifar10": ([*SEARCH, "--space", "Cifar10"], "--space cifar"),
    "data smaple": ([*SEARCH, "--data", "smaple"], "--data sample"),
    "data fashion_mnist": ([*SEARCH, "--data", "fashion_mnist"], "--data fashion-mnist"),
    "data fashion": ([*SEARCH, "--data", "fashion"], "--data fashion-mnist"),
    "sampler gided": ([*SEARCH, "--sampler", "gided"], "--sampler guided"),
    "sampler evo": ([*SEARCH, "--sampler", "evo"], "--sampler evolution"),
    "objective latncy": ([*SEARCH, "--objective", "latncy"], "--objective latency"),
    "architecture": (["cost", "resnet-5O"], "nasfuse cost resnet50"),
    "study": (["front", "fotos-1"], "photos-1"),
    # in a space file: (what is there, what is written instead)
    "operator multipy": (["- multiply", "- multipy"], "multiply"),
    "operator concta": (["- concat ", "- concta "], "concat"),
    "setting knd": (["- kind: mbconv", "- knd: mbconv"], "kind"),
    "hole choise": (["choice: [relu", "choise: [relu"], "choice: "),
    "name widht": (["stem: {width", "stem: {widht"], "width"),
}


@pytest.mark.parametrize(("arguments", "meant"), TYPOS.values(), ids=TYPOS.keys())
def test_the_fix_has_the_name_that_was_meant(
    arguments: list[str],
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if " " in arguments[0]:  # of a space file
        there, instead = arguments
        text = find_space("default").read_text(encoding="utf-8")
        assert there in text
        (tmp_path / "mine.yaml").write_text(text.replace(there, instead), encoding="utf-8")
        arguments = [*SEARCH, "--space", "mine.yaml"]
    if arguments[0] == "front":
        (tmp_path / "studies" / "photos-1").mkdir(parents=True)
        (tmp_path / "studies" / "photos-1" / "study.yaml").touch()
    monkeypatch.setattr("nasfuse.cli.app.done", lambda: None)  # this process goes on
    monkeypatch.setattr(sys, "argv", ["nasfuse", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code in (2, 3), said.err
    assert said.out == ""
    fix = next(line for line in said.err.splitlines() if line.startswith("  fix: "))
    assert meant in fix, said.err
