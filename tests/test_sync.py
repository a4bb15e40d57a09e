"""MLflow catches up: a server that was down, one killed on the way, runs that were left open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

import nasfuse.cli.app as command_line
from nasfuse import api
from nasfuse.errors import UsageError
from nasfuse.results import Result
from nasfuse.searching.addresses import remember
from nasfuse.searching.study import Settings, Study
from nasfuse.serving import Server, serve
from nasfuse.study_runs import find_experiment
from nasfuse.tracking import local_uri, open_client
from nasfuse.view import View, _tracker

MakeResult = Callable[..., Result]


@pytest.fixture
def make_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: Callable[..., Settings]
) -> Callable[..., Study]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("NASFUSE_STUDIES", str(tmp_path / "studies"))

    def make(uri: str | None = None) -> Study:
        settings = make_settings("s", tracking_uri=uri, trials=3)
        remember(uri)
        return Study.create(tmp_path / "studies" / "s", settings)

    return make


def stored(study: Study, uri: str) -> list[tuple[Any, ...]]:
    """Every run as values that can be compared: name, status, end, tags, parameters, metrics."""
    client = open_client(uri)
    experiment = find_experiment(client, study.settings.id)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return sorted(
        (r.info.run_name, r.info.status, r.data.tags, r.data.params, r.data.metrics) for r in runs
    )


def test_sync_ends_what_a_kill_left_open_and_repeats_nothing(
    make_study: Callable[..., Study],
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = make_study()
    uri = local_uri(study.folder.parent)
    study.record(make_result(0, rung=2, accuracy=0.7))
    _tracker(study, uri)  # as a killed search leaves it: open
    assert [status for _, status, *_ in stored(study, uri)] == ["RUNNING"]
    study.record(make_result(1, status="failed", accuracy=None, loss=None, cause="why"))
    monkeypatch.setattr(sys, "argv", ["nasfuse", "sync", "s", "--json"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["runs"] == 2
    first = stored(study, uri)
    assert Counter(run[1] for run in first) == {"KILLED": 1, "FINISHED": 1, "FAILED": 1}
    assert api.sync(study) == 2
    assert stored(study, uri) == first
    study.record(make_result(2, rung=2))
    api.sync(study)
    assert len(stored(study, uri)) == 4


def test_a_run_whose_beginning_was_not_answered_is_shown_once(
    make_study: Callable[..., Study], make_result: MakeResult
) -> None:
    study = make_study()
    uri = local_uri(study.folder.parent)
    results = [make_result(number, rung=2) for number in range(2)]
    begin = MlflowClient.create_run

    def lose_the_answer(client: MlflowClient, experiment: str, *words: Any) -> None:
        begin(client, experiment, *words)
        patch.undo()
        raise TimeoutError("no answer")

    view = View(study, uri)
    view._sync([])  # the study's run is there
    patch = pytest.MonkeyPatch()
    patch.setattr(MlflowClient, "create_run", lose_the_answer)
    view._sync(results[:1])
    assert view.problem == "the tracking store did not take the results: no answer"
    view._sync(results)
    assert view.problem is None
    assert [run[0] for run in stored(study, uri)] == ["s", "trial 0", "trial 1"]
    for result in results:
        study.record(result)
    api.sync(study)
    first = stored(study, uri)
    assert [run[0] for run in first] == ["s", "trial 0", "trial 1"]
    api.sync(study)
    assert stored(study, uri) == first


@pytest.mark.parametrize("name", ["what?now", "what%3Fnow"])
def test_a_folder_that_an_address_cannot_name_is_refused(
    tmp_path: Path, make_settings: Callable[..., Settings], name: str
) -> None:
    """SQLite's file would be made in a folder of another name."""
    study = Study.create(tmp_path / name / "s", make_settings("s"))
    with pytest.raises(UsageError, match="--studies FOLDER"):
        api.sync(study)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_with_other_signs_keeps_everything(
    tmp_path: Path, make_settings: Callable[..., Settings], make_result: MakeResult
) -> None:
    study = Study.create(tmp_path / "what #now; [ü]&" / "s", make_settings("s"))
    study.record(make_result(0, rung=2))
    assert api.sync(study) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["what #now; [ü]&"]
    kept = {path.name for path in study.folder.parent.rglob("*")}
    assert {"mlflow.db", "mlartifacts", "front.html"} <= kept


@pytest.mark.parametrize(
    ("limits", "complete", "status"),
    [
        ({"trials": None, "seconds": 60.0}, True, "FINISHED"),
        ({"trials": 1}, False, "KILLED"),  # killed in the finals, when all networks are there
    ],
)
def test_an_open_run_is_ended_as_the_search_ended(
    make_study: Callable[..., Study],
    make_result: MakeResult,
    limits: dict[str, Any],
    complete: bool,
    status: str,
) -> None:
    made = make_study()
    study = Study(made.folder, made.settings.model_copy(update=limits))
    uri = local_uri(study.folder.parent)
    study.record(make_result(0, rung=2))
    study.mark(complete=complete)
    _tracker(study, uri)
    api.sync(study)
    assert [run[1] for run in stored(study, uri) if run[0] == "s"] == [status]


def assert_safe(server: Server) -> None:
    """All its processes listen on this machine only, and would not unpickle a file."""
    main = psutil.Process(server.process.pid)
    processes = [main, *main.children(recursive=True)]
    sockets = [socket for one in processes for socket in one.net_connections()]
    listening = {socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert {f"http://{host}:{port}" for host, port in listening} == {server.address}
    for process in processes:
        assert process.environ()["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.slow
def test_a_server_down_at_the_start_and_killed_on_the_way_holds_nothing_up(
    make_study: Callable[..., Study], make_result: MakeResult, tmp_path: Path
) -> None:
    store, port = local_uri(tmp_path), 0
    open_client(store).search_experiments()  # makes the store
    with serve(store, tmp_path / "files") as first:
        port = int(first.address.rpartition(":")[2])
    study = make_study(first.address)
    results = [make_result(number, rung=2) for number in range(3)]
    with View(study, first.address) as view:
        view._sync(results[:1])
        assert view.problem is not None
        with serve(store, tmp_path / "files", port=port) as second:
            view._sync(results[:1])
            assert view.problem is None
            assert_safe(second)
            second.process.kill()
            second.process.wait()
            second.stop()
        for result in results:
            study.record(result)
        view._sync(results)
        assert view.problem is not None
        view.finish(results, complete=True)
        assert view.problem is not None
    with pytest.raises(api.SetupError, match="does not take"):
        api.sync(study)
    with serve(store, tmp_path / "files", port=port):
        assert api.sync(study) == 3
        shown = stored(study, first.address)
    assert len(shown) == 4
    assert {run[1] for run in shown} == {"FINISHED"}


@pytest.mark.slow
def test_a_search_whose_server_is_killed_ends_well_and_sync_shows_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[str]
) -> None:
    store, files, folder = local_uri(tmp_path), tmp_path / "files", tmp_path / "studies" / "s"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    open_client(store).search_experiments()  # makes the store

    def nasfuse(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "nasfuse", *words, "--studies", str(folder.parent)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, **streams)  # type: ignore[call-overload,no-any-return]

    with serve(store, files) as server:
        port = int(server.address.rpartition(":")[2])
        words = ["--name", "s", "--budget", "1MMACs", "--data", "digits"]
        words += ["--trials", "2", "--workers", "1", *quick]
        with nasfuse("search", *words, "--tracking-uri", server.address) as search:
            results, deadline = folder / "results.jsonl", time.monotonic() + 240
            while not results.exists() or not results.read_text().endswith("\n"):
                assert search.poll() is None, search.communicate()
                assert time.monotonic() < deadline, "no results"
                time.sleep(0.1)
            os.killpg(server.process.pid, signal.SIGKILL)
            said = "".join(search.communicate())
    assert search.returncode == 0, said
    assert "MLflow does not show all of this: the tracking store " in said
    assert "\nsync    nasfuse sync s --studies " in said
    study = Study.open(folder)
    with serve(store, files, port=port):
        for shown in range(2):
            before = stored(study, server.address) if shown else []
            with nasfuse("sync", "s", "--json") as syncing:
                out, err = syncing.communicate()
            assert syncing.returncode == 0, err
            assert json.loads(out)["runs"] == len({result.key for result in study.results})
            after = stored(study, server.address)
            assert [run[0] for run in after] == ["s", "trial 0", "trial 1"]
            assert {run[1] for run in after} == {"FINISHED"}
            assert after == (before or after)
