from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nasfuse.api import resume
from nasfuse.errors import StorageError, UsageError
from nasfuse.results import Result
from nasfuse.searching.cluster import Resources
from nasfuse.searching.limits import Limits, keep_limits, last_limits
from nasfuse.searching.study import FORMAT, Settings, Study, find_study, free_name, study_names

MakeResult = Callable[..., Result]
MakeSettings = Callable[..., Settings]


def test_a_study_opens_as_it_was_created(tmp_path: Path, make_settings: MakeSettings) -> None:
    created = Study.create(tmp_path / "a", make_settings())
    opened = Study.open(tmp_path / "a")
    assert opened.settings == created.settings
    assert opened.settings.search_space.classes == 2
    assert opened.results == []


def test_an_existing_study_is_never_replaced(tmp_path: Path, make_settings: MakeSettings) -> None:
    Study.create(tmp_path / "a", make_settings())
    with pytest.raises(UsageError, match="already"):
        Study.create(tmp_path / "a", make_settings())


def test_results_come_back_in_order(
    tmp_path: Path, make_result: MakeResult, make_settings: MakeSettings
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    for number in range(3):
        study.record(make_result(number))
    assert [r.number for r in study.results] == [0, 1, 2]
    assert study.results[1] == make_result(1)


def test_a_torn_last_line_is_dropped_and_the_worker_s_copy_taken(
    tmp_path: Path, make_result: MakeResult, make_settings: MakeSettings
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    study.record(make_result(0))
    lost = make_result(1)
    path = study.folder / "results.jsonl"
    with path.open("a") as file:
        file.write(lost.model_dump_json()[:40])  # killed in the middle of the line
    folder = study.trial(lost.key)
    folder.mkdir(parents=True)
    (folder / "rung0.json").write_text(lost.model_dump_json(exclude_none=True))
    (folder / f".rung1.json.tmp-{dead_process()}-1").write_text("half")
    (folder / ".rung1.json.tmp-of-somebody").write_text("half")
    (folder / f".rung2.json.tmp-{os.getppid()}-1").write_text("of a writer that lives")
    (study.folder / "report").mkdir()
    (study.folder / "report" / f".front.png.tmp-{dead_process()}-1").write_text("half")
    assert [r.number for r in study.results] == [0]
    assert [r.number for r in study.recover()] == [0, 1]
    assert [r.number for r in study.recover()] == [0, 1]
    assert [path.name for path in study.folder.rglob(".*")] == [f".rung2.json.tmp-{os.getppid()}-1"]


def dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_half_a_line_is_taken_back(
    tmp_path: Path,
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
    make_settings: MakeSettings,
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    study.record(make_result(0))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nasfuse.results.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        study.record(make_result(1))
    monkeypatch.undo()
    study.record(make_result(2))
    assert [r.number for r in study.results] == [0, 2]


def test_a_damaged_line_is_named(
    tmp_path: Path, make_result: MakeResult, make_settings: MakeSettings
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    study.record(make_result(0))
    path = study.folder / "results.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(StorageError, match="damaged") as caught:
        _ = study.results
    assert "line 1" in caught.value.where


def test_a_study_of_a_newer_version_is_refused(tmp_path: Path, make_settings: MakeSettings) -> None:
    Study.create(tmp_path / "a", make_settings())
    path = tmp_path / "a" / "study.yaml"
    path.write_text(
        path.read_text().replace(f"version: {FORMAT}\n", "version: 99\nsparkle: 1\n", 1)
    )
    with pytest.raises(StorageError, match="by a newer nasfuse") as caught:
        Study.open(tmp_path / "a")
    assert "its format is 99" in caught.value.why
    assert caught.value.fix == "pip install --upgrade nasfuse"


def test_a_study_of_an_older_format_is_read_and_not_gone_on_with(
    tmp_path: Path, make_settings: MakeSettings, make_result: MakeResult
) -> None:
    study = Study.create(tmp_path / "a", make_settings(version=1))
    study.record(make_result(0, calibrated_loss=None))
    older = Study.open(tmp_path / "a")
    assert [result.number for result in older.results] == [0]
    with pytest.raises(StorageError, match="cannot go on") as caught:
        resume(older, Limits(2, None), Resources(1))
    assert "judged short trainings by their accuracy" in caught.value.why
    assert older.results == study.results


def test_a_study_of_an_older_version_opens(tmp_path: Path, make_settings: MakeSettings) -> None:
    """Version 0.1.0 began without what has a default now."""
    Study.create(tmp_path / "a", make_settings(trials=5, objective="params", skip_bad=2))
    path = tmp_path / "a" / "study.yaml"
    document = yaml.safe_load(path.read_text())
    for name, about in Settings.model_fields.items():
        if not about.is_required():
            del document[name]
    path.write_text(yaml.safe_dump(document))
    assert Study.open(tmp_path / "a").settings == make_settings(version=1)


@pytest.mark.parametrize("content", [b"", b"version: [", b"\0" * 400, b"version: 1\nname: a\n"])
def test_damaged_settings_are_named(
    tmp_path: Path, make_settings: MakeSettings, content: bytes
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    (study.folder / "study.yaml").write_bytes(content)
    with pytest.raises(StorageError, match="settings are damaged") as caught:
        Study.open(study.folder)
    assert "study.yaml" in caught.value.where
    assert caught.value.exit_code == 8


def test_a_study_serves_one_process(tmp_path: Path, make_settings: MakeSettings) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    code = (
        "import sys; from pathlib import Path; from nasfuse.searching.study import Study\n"
        "with Study.open(Path(sys.argv[1])).locked(): pass"
    )
    command = [sys.executable, "-c", code, str(study.folder)]
    with study.locked():
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "is in use" in second.stderr
    assert str(os.getpid()) in second.stderr
    assert subprocess.run(command, check=False).returncode == 0


LOOKING = """
import sys
from pathlib import Path
from nasfuse.searching.study import Study
study = Study.open(Path(sys.argv[1]))
print("looks", flush=True)
while (study.folder / "trials").exists():
    study.searcher
"""


def test_looking_at_a_study_keeps_nobody_from_searching_in_it(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    """Who looks holds the lock for an instant, where a killed search has left its number."""
    study = Study.create(tmp_path / "a", make_settings())
    command = [sys.executable, "-c", LOOKING, str(study.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        try:
            for _ in range(100):
                (study.folder / "study.pid").write_text(str(dead_process()))
                time.sleep(0.002)
                with study.locked():
                    pass
        finally:
            (study.folder / "trials").rmdir()


def test_studies_are_found_by_name_or_by_last_use(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    for name in ("one", "two"):
        Study.create(tmp_path / name, make_settings(name))
    os.utime(tmp_path / "one" / "study.yaml", (2e9, 2e9))
    assert study_names(tmp_path) == ["two", "one"]
    assert find_study(tmp_path, None).settings.name == "one"
    assert find_study(tmp_path, "two").settings.name == "two"
    with pytest.raises(UsageError) as caught:
        find_study(tmp_path, "tow")
    assert caught.value.fix == "nasfuse status two"
    with pytest.raises(UsageError, match="no study yet"):
        find_study(tmp_path / "nowhere", None)
    assert not (tmp_path / "nowhere").exists()


def test_names_are_numbered(tmp_path: Path, make_settings: MakeSettings) -> None:
    Study.create(tmp_path / "sample-1", make_settings())
    assert free_name(tmp_path, "sample") == "sample-2"


def test_the_limits_of_the_last_run_hold(tmp_path: Path, make_settings: MakeSettings) -> None:
    study = Study.create(tmp_path / "a", make_settings(trials=20))
    assert last_limits(study) == Limits(20, None)
    keep_limits(study, Limits(40, 60.0))
    assert last_limits(Study.open(study.folder)) == Limits(40, 60.0)
    (study.folder / "limits.json").write_text('{"trials": -1, "seconds": null}')
    with pytest.raises(StorageError, match="limits") as damaged:
        last_limits(study)
    assert "trials" in damaged.value.why
