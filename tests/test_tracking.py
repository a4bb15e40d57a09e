"""MLflow as a view: logged once, brought up to date, and never in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.store.db import utils

from nasfuse.empty_store import making
from nasfuse.errors import SetupError, StorageError
from nasfuse.results import Result
from nasfuse.serving import serve
from nasfuse.tracking import Tracker, TrackingError, local_uri, open_client, study_addresses
from nasfuse.trial_runs import flatten, milliseconds, trial_runs

BUDGET = 100_000_000
MakeResult = Callable[..., Result]
Open = Callable[[], Tracker]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store to copy, because making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.raises(StorageError):
        study_addresses("", local_uri(folder), "demo", "demo")
    Tracker.open(local_uri(folder), artifacts=None, study="other", identity="other", settings={})
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def empty_database(postgres: Any) -> str:
    """The name of a migrated database to copy."""
    name: str = postgres.create()
    Tracker.open(postgres.url(name), artifacts=None, study="other", identity="other", settings={})
    return name


@pytest.fixture(params=["file", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store that has another study's run."""
    studies = tmp_path / "my studies"
    studies.mkdir()
    if request.param == "file":
        shutil.copy(request.getfixturevalue("empty_store"), studies)
        return local_uri(studies)
    server, template = map(request.getfixturevalue, ("postgres", "empty_database"))
    return str(server.url(server.create(template)))


@pytest.fixture
def open_tracker(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.chdir(tmp_path)
    studies = tmp_path / "my studies"

    def open_tracker() -> Tracker:
        artifacts, settings = studies / "mlartifacts", {"budget": "100M"}
        return Tracker.open(
            store,
            artifacts=artifacts,
            study="demo",
            identity="demo",
            settings=settings,
        )

    return open_tracker


def trials(tracker: Tracker) -> dict[str, Any]:
    """The child runs that the store has, by name."""
    where = f"tags.`mlflow.parentRunId` = '{tracker.parent_id}'"
    runs = tracker.client.search_runs([tracker.experiment_id], where)
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs), "a trial was logged twice"
    return named


def test_the_same_results_again_change_nothing(open_tracker: Open, make_result: MakeResult) -> None:
    results = [make_result(n, accuracy=0.5 + n / 100, rung=1) for n in range(3)]
    tracker = open_tracker()
    tracker.sync(results, 1, BUDGET)
    before = {name: run.to_dictionary() for name, run in trials(tracker).items()}
    tracker.sync(results, 1, BUDGET)
    again = open_tracker()
    again.sync(results, 1, BUDGET)
    assert again.parent_id == tracker.parent_id
    assert {name: run.to_dictionary() for name, run in trials(again).items()} == before
    assert len(before) == 3
    history = again.client.get_metric_history(again.parent_id, "hypervolume")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_what_a_trial_shows(open_tracker: Open, make_result: MakeResult) -> None:
    tracker = open_tracker()
    tracker.sync([make_result(7, rung=1, macs=5_000_000, accuracy=0.5)], 1, BUDGET)
    run = trials(tracker)["trial 7"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["mmacs"] == 5.0
    assert run.data.metrics["accuracy"] == run.data.metrics["accuracy_rung1"] == 0.5
    assert run.data.params["stages.1.block.kind"] == "mbconv"
    assert run.data.params["seed"] == "0"
    assert run.data.tags["nasfuse.key"] == f"{7:012x}"
    parent = tracker.client.get_run(tracker.parent_id)
    assert parent.data.params == {"budget": "100M"}


def test_a_higher_rung_updates_the_trial(open_tracker: Open, make_result: MakeResult) -> None:
    low = make_result(0, rung=0, accuracy=0.4, loss=1.0)
    high = make_result(
        0, rung=1, accuracy=0.6, loss=0.7, seed=9, finished="2026-01-01T00:01:00+00:00"
    )
    tracker = open_tracker()
    tracker.sync([low], 1, BUDGET)
    assert "accuracy" not in trials(tracker)["trial 0"].data.metrics
    open_tracker().sync([low, high], 1, BUDGET)
    metrics = trials(tracker)["trial 0"].data.metrics
    assert (metrics["accuracy_rung0"], metrics["accuracy_rung1"]) == (0.4, 0.6)
    assert (metrics["accuracy"], metrics["loss"], metrics["seconds"]) == (0.6, 0.7, 2.0)


def test_a_beaten_trial_leaves_the_front(open_tracker: Open, make_result: MakeResult) -> None:
    first = make_result(0, accuracy=0.4)
    tracker = open_tracker()
    tracker.sync([first], 0, BUDGET)
    assert trials(tracker)["trial 0"].data.tags["pareto"] == "yes"
    tracker.sync([first, make_result(1, accuracy=0.5)], 0, BUDGET)
    runs = trials(tracker)
    assert [runs[f"trial {n}"].data.tags["pareto"] for n in (0, 1)] == ["no", "yes"]
    assert [runs[f"trial {n}"].data.metrics["pareto"] for n in (0, 1)] == [0.0, 1.0]


def test_a_failure_and_its_second_try(open_tracker: Open, make_result: MakeResult) -> None:
    failed = make_result(0, status="failed", accuracy=None, loss=None, cause="out of memory")
    tracker = open_tracker()
    tracker.sync([failed], 0, BUDGET)
    run = trials(tracker)["trial 0"]
    assert run.info.status == "FAILED"
    assert run.data.tags["nasfuse.cause"] == "out of memory"
    tracker.sync([failed, make_result(0)], 0, BUDGET)
    run = trials(tracker)["trial 0"]
    assert run.info.status == "FINISHED"
    assert not run.data.tags.get("nasfuse.cause")


def test_a_repeat_that_failed_is_no_failure_of_the_network(make_result: MakeResult) -> None:
    full = make_result(3, key="a" * 12, rung=2, accuracy=0.7)
    again = make_result(
        3, key="a" * 12, rung=2, repeat=1, status="failed", accuracy=None, cause="no memory"
    )
    (trial,) = trial_runs([full, again], 2)
    assert trial.complete
    assert trial.tags["nasfuse.status"] == "complete"
    assert "nasfuse.cause" not in trial.tags
    assert trial.end == milliseconds(again)


def test_a_deep_network_has_more_parameters_than_one_call_takes(
    open_tracker: Open, make_result: MakeResult, document: dict[str, Any]
) -> None:
    document["stages"][0] |= {"depth": 128, "fusion": "add"}
    tracker = open_tracker()
    tracker.sync([make_result(0, architecture=document)], 0, BUDGET)
    assert len(trials(tracker)["trial 0"].data.params) > 128


def test_note_and_files(open_tracker: Open, make_result: MakeResult, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "front.csv").write_text("a,b\n")
    (tmp_path / "report" / ".front.html.1.tmp").write_text("half")
    tracker = open_tracker()
    tracker.sync([make_result(0)], 0, BUDGET)
    tracker.publish(tmp_path / "report", "# A note")
    tracker.close("FINISHED")
    run_id = trials(tracker)["trial 0"].info.run_id
    parent = tracker.client.get_run(tracker.parent_id)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("[Chart of all trials](#/experiments/")
    assert note.endswith("# A note")
    assert f"(#/experiments/{tracker.experiment_id}/runs/{run_id}?" in note
    assert parent.info.status == "FINISHED"
    files = tracker.client.list_artifacts(tracker.parent_id, "report")
    assert [file.path for file in files] == ["report/front.csv"]
    assert (tmp_path / "my studies" / "mlartifacts" / "demo").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_a_long_front_is_cut_to_what_a_note_holds(
    open_tracker: Open, make_result: MakeResult
) -> None:
    results = [make_result(n, macs=1000 + n, accuracy=n / 1000) for n in range(100)]
    tracker = open_tracker()
    tracker.sync(results, 0, BUDGET)
    note = tracker._note("# A note")
    assert len(note) < 8000
    assert note.endswith("# A note")
    assert "| 99 |" in note  # the most accurate stays


def test_changed_settings_are_told(open_tracker: Open, store: str) -> None:
    tracker = open_tracker()
    tracker.close("KILLED")
    again = Tracker.open(
        store, artifacts=None, study="demo", identity="demo", settings={"budget": "200M"}
    )
    run = again.client.get_run(again.parent_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["nasfuse.now.budget"] == "200M"


def test_studies_of_one_name_are_kept_apart(open_tracker: Open, store: str) -> None:
    """The folder of the first was removed, say, and its name taken again."""
    first = open_tracker()
    second = Tracker.open(store, artifacts=None, study="demo", identity="feed1234", settings={})
    assert second.experiment_id != first.experiment_id
    assert second.parent_id != first.parent_id
    name = second.client.get_experiment(second.experiment_id).name
    assert name == "nasfuse/demo feed12"
    assert study_addresses("", store, "demo", "feed1234").front.startswith(
        f"/#/experiments/{second.experiment_id}/"
    )


def test_a_deleted_study_comes_back(open_tracker: Open) -> None:
    tracker = open_tracker()
    tracker.client.delete_experiment(tracker.experiment_id)
    assert open_tracker().experiment_id == tracker.experiment_id


def test_a_new_store_is_a_copy_of_an_empty_one_if_that_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    """So its tables are not made by all of MLflow's migrations again."""
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    with making(tmp_path / "first.db"):
        shutil.copy(empty_store, tmp_path / "first.db")
    (kept,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", lambda engine: pytest.fail(str(engine)))
        for name in ("second", "third"):
            studies = tmp_path / name
            found = open_client(local_uri(studies)).search_experiments()
            assert [experiment.name for experiment in found] == ["Default"]
    damaged = kept.read_bytes()[:5000] + bytes(5000)
    kept.write_bytes(damaged)
    with making(tmp_path / "fourth.db"):
        assert not (tmp_path / "fourth.db").exists()
        shutil.copy(empty_store, tmp_path / "fourth.db")
    assert kept.read_bytes() != damaged


def test_a_store_is_made_also_where_the_cache_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "file" / "cache"))
    with making(tmp_path / "first.db"):
        (tmp_path / "first.db").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "first.db"]


def test_a_client_would_not_unpickle(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    open_client(f"sqlite:///{empty_store}")
    assert MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    start = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        Tracker.open(
            "http://127.0.0.1:9", artifacts=None, study="demo", identity="demo", settings={}
        )
    assert caught.value.__cause__ is not None
    assert time.monotonic() - start < 10


def test_a_store_that_fails_in_the_middle(open_tracker: Open, make_result: MakeResult) -> None:
    tracker = open_tracker()
    real, tracker.client = tracker.client, None
    with pytest.raises(TrackingError):
        tracker.sync([make_result(0)], 0, BUDGET)
    tracker.client = real
    tracker.sync([make_result(0)], 0, BUDGET)
    assert trials(tracker)["trial 0"].info.status == "FINISHED"


def test_a_run_that_was_begun_twice_is_kept_once(
    open_tracker: Open, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is lost, and MLflow's client asks again: so for the study's run and a trial's."""
    begin = MlflowClient.create_run

    def ask_twice(client: MlflowClient, *words: Any) -> Any:
        begin(client, *words)
        return begin(client, *words)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", ask_twice)
        patch.setattr(time, "time", lambda: 1e9)  # the second call carries the time of the first
        tracker = open_tracker()
        tracker.sync([make_result(0)], 0, BUDGET)
    again = open_tracker()
    again.sync([make_result(0), make_result(1)], 0, BUDGET)
    runs = again.client.search_runs([again.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["demo", "trial 0", "trial 1"]
    assert trials(again)["trial 0"].data.metrics["accuracy"] == 0.5
    before = [run.to_dictionary() for run in runs]
    open_tracker().sync([make_result(0), make_result(1)], 0, BUDGET)
    assert [r.to_dictionary() for r in again.client.search_runs([again.experiment_id])] == before


def test_trials_of_a_study_s_run_that_is_gone_move_to_the_new_one(
    open_tracker: Open, make_result: MakeResult
) -> None:
    first = open_tracker()
    first.sync([make_result(0)], 0, BUDGET)
    first.client.delete_run(first.parent_id)
    second = open_tracker()
    second.sync([make_result(0)], 0, BUDGET)
    assert second.parent_id != first.parent_id
    assert list(trials(second)) == ["trial 0"]
    assert not trials(first)


@pytest.mark.slow
def test_several_make_one_store_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow's own client makes the tables as it is made, and fails where another does so too."""
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    says = "import sys; from nasfuse.tracking import open_client; open_client(sys.argv[1])"
    uri = local_uri(tmp_path / "new")
    openers = [
        subprocess.Popen([sys.executable, "-c", says, uri], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    errors = [opener.communicate()[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * len(openers), errors


def test_looking_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no study has been tracked"):
        serve(local_uri(tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study(open_tracker: Open, store: str) -> None:
    open_tracker()
    with pytest.raises(StorageError, match="'nothing' has not been tracked"):
        study_addresses("", store, "nothing", "nothing")


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, though it has the name of one")
    log = tmp_path / "log.txt"
    with pytest.raises(SetupError, match="did not start") as caught:
        serve(local_uri(tmp_path), tmp_path, log=log)
    assert "exit code" in caught.value.why
    assert log.stat().st_size > 0


def test_flatten() -> None:
    document = {"a": 1, "b": [{"c": "x"}, 2.5]}
    assert dict(flatten(document)) == {"a": "1", "b.0.c": "x", "b.1": "2.5"}
