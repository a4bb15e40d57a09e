"""Folders that may not be written, studies that somebody else holds, and names that are wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nasfuse.cli.app as command_line
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study

MakeResult = Callable[..., Result]
MakeSettings = Callable[..., Settings]
NAME = "étude 网络 #1?%41"


@pytest.fixture
def study(tmp_path: Path, make_settings: MakeSettings, make_result: MakeResult) -> Study:
    study = Study.create(tmp_path / "my studies" / NAME, make_settings(NAME))
    study.record(make_result(0, rung=2))
    return study


def as_others(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """nasfuse as a user whom the rights of files bind, which root is not."""
    command = [sys.executable, "-m", "nasfuse", *arguments]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def locked_up(study: Study) -> Study:
    """A study in a folder that may be read only, left there by a search that was killed."""
    (study.folder / "study.pid").write_text("999999999")
    for folder in (study.folder / "trials", study.folder, study.folder.parent):
        folder.chmod(0o555)
    return study


def test_a_study_that_may_only_be_read_is_read(locked_up: Study) -> None:
    here = locked_up.folder.parent.parent
    for verb in ("front", "status"):
        run = as_others(verb, NAME, "--json", "--studies", "my studies", cwd=here)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["study"] == NAME
    assert not (locked_up.folder / "study.lock").exists()


def test_what_would_write_there_says_why_it_cannot(locked_up: Study) -> None:
    here = locked_up.folder.parent.parent
    before = sorted(here.rglob("*"))
    for arguments in (["sync", NAME], ["search", "--budget", "1MFLOPs", "--name", "new"]):
        run = as_others(*arguments, "--studies", "my studies", cwd=here)
        assert run.returncode == 8, run.stderr
        assert "error[NF800]: a file cannot be written" in run.stderr
        assert "my studies" in run.stderr
        assert "Permission denied" in run.stderr
        assert "Traceback" not in run.stderr
    assert sorted(here.rglob("*")) == before


def test_a_lock_that_outlived_its_machine_is_no_lock(study: Study) -> None:
    """The file stays where the power went; the system's lock on it does not."""
    (study.folder / "study.lock").touch()
    for process in ("999999999", str(os.getpid()), "", "unknown"):  # gone, or another one's now
        (study.folder / "study.pid").write_text(process)
        assert study.searcher is None
        with study.locked():
            assert study.searcher == os.getpid()
        assert not (study.folder / "study.pid").exists()


VERBS = [
    ["resume"], ["status"], ["stop"], ["front"], ["show"], ["explain"], ["ui"], ["sync"],
    ["train"], ["export", "--out", "net"],
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("studies", ["my studies", "nowhere/at all"])
def test_a_wrong_name_or_folder_creates_nothing(
    verb: list[str],
    studies: str,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = study.folder.parent.parent
    monkeypatch.chdir(here)
    before = sorted(here.rglob("*"))
    wrong = NAME.replace("tu", "ut")
    for name in (wrong, f"./{studies}/{wrong}"):
        words = [*verb, name, "--studies", studies]
        monkeypatch.setattr(sys, "argv", ["nasfuse", *words])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr().err
        assert ended.value.code in (2, 3), said
        assert "error[NF" in said
        assert "Traceback" not in said
        if studies == "my studies" and name == wrong:
            assert NAME in said, "the near name is offered"
        assert sorted(here.rglob("*")) == before
