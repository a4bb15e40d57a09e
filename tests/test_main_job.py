"""The main job end to end: real Ray workers, real Optuna storage, real MLflow, a real export.

One small search is killed in the middle, resumed, looked at and exported from.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from nasfuse.finals import finalists
from nasfuse.results import Result, read_results
from nasfuse.searching.study import Study

TRIALS = 9
COMMAND = [sys.executable, "-m", "nasfuse"]
OPTIONS = ["--budget", "1MFLOPs", "--trials", str(TRIALS), "--name", "tiny", "--workers", "2"]

pytestmark = pytest.mark.slow


def environment(tmp: Path) -> dict[str, str]:
    return {**os.environ, "NASFUSE_STUDIES": str(tmp / "my studies"), "COLUMNS": "100"}


def wait_for_results(path: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline, "no results"
        time.sleep(0.1)


def processes(tmp: Path) -> Iterator[psutil.Process]:
    """All that searches of this folder have started and that have not ended.

    They are known by their environment or, as Ray's agents overwrite that, by where they started.
    """
    mark = environment(tmp)["NASFUSE_STUDIES"]
    for process in psutil.process_iter(["cmdline"]):
        try:
            marked = process.environ().get("NASFUSE_STUDIES") == mark
            if (marked or process.cwd() == str(tmp.resolve())) and process.status() != "zombie":
                yield process
        except psutil.Error:  # it has ended, or is not ours
            continue


def workers(tmp: Path) -> set[int]:
    """Processes in which Ray trains for searches of this folder."""
    return {p.pid for p in processes(tmp) if "Trainable" in "".join(p.info["cmdline"] or [])}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search that was killed with kill -9 and resumed to its end."""
    tmp = tmp_path_factory.mktemp("main job")
    env = environment(tmp)
    folder = tmp / "my studies" / "tiny"
    with subprocess.Popen(
        [*COMMAND, "search", *OPTIONS],
        env=env,
        cwd=tmp,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as killed:
        wait_for_results(folder / "results.jsonl", 4)
        killed.send_signal(signal.SIGKILL)
        output = killed.stdout.read() if killed.stdout else ""
    done = read_results(folder / "results.jsonl")
    complete = Study.open(folder).complete
    resumed = subprocess.run(
        [*COMMAND, "resume", "--trials", str(TRIALS), "--json"],
        env=env,
        cwd=tmp,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "tmp": tmp,
        "env": env,
        "folder": folder,
        "killed": output,
        "killed complete": complete,
        "done": done,
        "resumed": resumed,
    }


def results(searched: dict[str, Any]) -> list[Result]:
    return read_results(searched["folder"] / "results.jsonl")


def test_it_ends_well_and_prints_the_front(searched: dict[str, Any]) -> None:
    run = searched["resumed"]
    assert run.returncode == 0, run.stderr
    front = json.loads(run.stdout)["front"]
    assert front
    assert all(row["rung"] == 2 and row["macs"] <= 1_000_000 for row in front)
    accuracies = [row["accuracy"] for row in front]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] > 0.6, "trained on real images, ten classes"
    assert "nasfuse ui" in run.stderr
    assert Study.open(searched["folder"]).complete


def test_killing_lost_and_repeated_nothing(searched: dict[str, Any]) -> None:
    after = results(searched)
    assert searched["killed complete"] is False
    assert after[: len(searched["done"])] == searched["done"]
    assert max(Counter(r.step for r in after).values()) == 1
    assert len({r.key for r in after}) == TRIALS
    assert all(r.status == "complete" for r in after), [r.cause for r in after]


def test_finalists_were_trained_again_and_judged(searched: dict[str, Any]) -> None:
    repeats = Counter(r.repeat for r in results(searched) if r.rung == 2)
    expected = len(finalists(results(searched), 2))  # how many bands there are is chance
    assert [repeats[number] for number in (1, 2, 3)] == [expected] * 3
    assert expected >= 2
    assert "Finals: " in searched["resumed"].stderr
    lines = (searched["folder"] / "report" / "report.md").read_text()
    assert "Winner: " in lines or "No winner: " in lines


def test_every_network_was_within_the_budget_by_both_counts(searched: dict[str, Any]) -> None:
    for result in results(searched):
        assert result.macs <= 1_000_000
        assert result.thop <= 1_000_000


def test_optuna_knows_every_first_rung(searched: dict[str, Any]) -> None:
    with sqlite3.connect(searched["folder"] / "study.db") as database:
        states = Counter(row[0] for row in database.execute("select state from trials"))
    assert states["COMPLETE"] == TRIALS
    assert states["RUNNING"] == 0


def test_no_process_is_left(searched: dict[str, Any]) -> None:
    deadline = time.monotonic() + 30
    while (left := list(processes(searched["tmp"]))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def test_the_report_is_there(searched: dict[str, Any]) -> None:
    report = searched["folder"] / "report"
    assert {"front.html", "front.png", "front.csv"} <= {p.name for p in report.iterdir()}
    assert (report / "front.html").stat().st_size < 6_000_000


def test_mlflow_shows_every_trial(searched: dict[str, Any]) -> None:
    with sqlite3.connect(searched["folder"].parent / "mlflow.db") as database:
        keys = database.execute("select value from tags where key = 'nasfuse.key'").fetchall()
        states = Counter(row[0] for row in database.execute("select status from runs"))
    assert sorted(key for (key,) in keys) == sorted({r.key for r in results(searched)})
    assert states["RUNNING"] == 0


def test_the_best_network_is_exported(searched: dict[str, Any]) -> None:
    out = searched["tmp"] / "net"
    run = subprocess.run(
        [*COMMAND, "export", "best", "--out", str(out)],
        env=searched["env"],
        cwd=searched["tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "largest difference: python 0" in run.stdout
    assert "Weights of the search (a full run)" in run.stdout
    assert "other seeds, which did not choose it" in run.stdout
    verified = json.loads((out / "verify.json").read_text())
    differences = verified["largest_difference_by_batch"]
    assert set(differences["python"].values()) == {0.0}
    assert max(differences["onnx"].values()) <= 1e-5
    assert verified["validation"]["images"] == 2000


def test_a_search_that_is_done_trains_nothing_more(searched: dict[str, Any]) -> None:
    before = results(searched)
    run = subprocess.run(
        [*COMMAND, "resume", "tiny", "--trials", str(TRIALS)],
        env=searched["env"],
        cwd=searched["tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert results(searched) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_says_how_to_go_on(
    searched: dict[str, Any], number: signal.Signals, code: int
) -> None:
    name = f"stopped-{code}"
    folder = searched["folder"].parent / name
    with subprocess.Popen(
        [*COMMAND, "search", "--budget", "1MFLOPs", "--trials", "50", "--name", name],
        env=searched["env"],
        cwd=searched["tmp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for_results(folder / "results.jsonl", 2)
        process.send_signal(number)
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == code, output
    assert f"nasfuse resume {name}" in output
    assert Study.open(folder).complete is False
    assert read_results(folder / "results.jsonl")


@pytest.fixture
def scarce() -> Iterator[Path | None]:
    """A control group with next to no memory, for processes to be moved to; None without rights."""
    old = Path("/sys/fs/cgroup/memory")
    root, limit = (old, "memory.limit_in_bytes") if old.exists() else (old.parent, "memory.max")
    group = root / f"nasfuse-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(1 << 20))
    except OSError:
        yield None
    else:
        yield None if psutil.swap_memory().total else group
    with suppress(OSError):  # it was not made
        group.rmdir()


def test_a_network_whose_workers_are_killed_fails_and_the_search_goes_on(
    tmp_path: Path, scarce: Path | None, quick: list[str]
) -> None:
    """By the kernel for want of memory, where a test may arrange that; a third death is enough."""
    limits = ["--trials", "3", "--workers", "1", "--data", "digits", *quick]
    killed: set[int] = set()
    with subprocess.Popen(
        [*COMMAND, "search", "--budget", "1MFLOPs", "--name", "died", *limits],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        while len(killed) < 3 and process.poll() is None:
            for pid in workers(tmp_path) - killed:
                if scarce:
                    (scarce / "cgroup.procs").write_text(str(pid))
                else:
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    first, *others = read_results(tmp_path / "my studies" / "died" / "results.jsonl")
    assert first.status == "failed"
    assert "worker died three times" in str(first.cause)
    if scarce:
        assert "the system killed 3 processes for want of memory" in str(first.cause)
    assert {result.status for result in others} == {"complete"}
    assert len({result.key for result in others}) == 2


def test_trials_that_fail_are_recorded_and_end_the_search_when_all_do(
    searched: dict[str, Any],
) -> None:
    """With rates that no network survives, every trial fails, and the search says why."""
    recipe = searched["tmp"] / "wild.yaml"
    recipe.write_text("{filter_rate: 1.0e+30, rate: 1.0e+30}")
    run = subprocess.run(
        [*COMMAND, "search", "--budget", "1MFLOPs", "--name", "wild", "--recipe", str(recipe)],
        env=searched["env"],
        cwd=searched["tmp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 6, run.stderr
    assert "NonFiniteError" in run.stderr
    assert f"nasfuse resume {shlex.quote(str(searched['folder'].parent / 'wild'))}" in run.stderr
    failed = read_results(searched["folder"].parent / "wild" / "results.jsonl")
    assert {r.status for r in failed} == {"failed"}
    assert all(r.cause and "NonFiniteError" in r.cause for r in failed)
