"""Results in MLflow: a view of a study that can be rebuilt from its results at any time.

One experiment a study; in it a parent run for the study and a child run for each trial. No search
depends on it: what MLflow raises arrives as TrackingError, to be noted and passed over.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nasfuse.empty_store import making
from nasfuse.errors import StorageError, UsageError, hide_passwords
from nasfuse.results import Result, complete
from nasfuse.study_runs import (
    Known,
    find_experiment,
    log_values,
    study_experiment,
    study_run,
    study_runs,
    trials_known,
)
from nasfuse.summary import Row, front_rows, hypervolumes, reach
from nasfuse.tables import markdown_table
from nasfuse.trial_runs import Metric, TrialRun, milliseconds, shared_view, trial_runs

VIEW = "front"
TRAINING = "workflowType=machine_learning"  # else MLflow opens on its pages for language models
NOTE_CHARACTERS = 7900  # MLflow cuts a tag at 8000
PATIENCE = 60  # seconds for which a local store waits for another search's writing; SQLite's are 5
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # which would run code of whoever made a file
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own are 7 tries of 120 s each: a search would stand still for a server that is down
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class TrackingError(Exception):
    """The tracking server or its store did not do what it was asked; the search can go on."""


def local_uri(studies: Path) -> str:
    """The address of the one MLflow store in a folder of studies.

    Raises:
        UsageError: the folder's path cannot stand in such an address.
    """
    path = str((studies / "mlflow.db").absolute())
    # what follows a "?" is options, and whether "%3F" is one depends on SQLAlchemy's version:
    # files would be made in another folder
    if found := [sign for sign in "?%" if sign in path]:
        raise UsageError(
            f"MLflow's store cannot lie in a folder with {' or '.join(found)} in its path",
            where=str(studies.absolute()),
            why="an address such as sqlite:///runs.db has another meaning for these characters",
            fix="--studies FOLDER   with another path, or --tracking-uri for MLflow elsewhere",
        )
    return f"sqlite:///{path}"


@dataclass
class Tracker:
    """A study's view, open for writing. Use `Tracker.open`."""

    client: Any
    experiment_id: str
    parent_id: str
    known: dict[str, Known]
    volumes: int  # how many values of the hypervolume the parent has
    before: str = "RUNNING"  # the parent's status until it was opened
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        artifacts: Path | None,
        study: str,
        identity: str,
        settings: Mapping[str, str],
    ) -> Tracker:
        """Find or create the study's experiment and parent run, and read what is there.

        `artifacts` is the folder for files, None where the server has its own; `settings` are
        shown on the parent run. `identity` tells studies of one name apart.

        Raises:
            TrackingError: the server or the store cannot be used.
        """
        with tracking("cannot be opened"):
            client = open_client(uri)
            experiment = study_experiment(client, study, identity, artifacts)
            begun = study_run(client, experiment, study, settings)
            parent = begun.run_id
            _offer_view(client, experiment, parent)
            known = trials_known(client, experiment)
            history = client.get_metric_history(parent, "hypervolume")
        steps = max((metric.step for metric in history), default=0)
        return cls(client, experiment.experiment_id, parent, known, steps, begun.status)

    def sync(
        self,
        results: Sequence[Result],
        final_rung: int,
        budget: int,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Log what is new or has changed since; the same results again change nothing.

        Only accuracies of `final_rung` become the metric `accuracy`; `budget` in MACs. Once
        `stopped` it does no more: the next call goes on.

        Raises:
            TrackingError: the next call goes on where this one stopped.
        """
        runs = trial_runs(results, final_rung)
        self.rows = front_rows(results)
        trained = complete(results, final_rung)
        limit = reach(trained, budget)
        # up to the largest cost found by now, where the budget is no limit to the costs that count:
        # values of different boxes would make no curve, and the report has one
        curve = trained if limit == budget else []
        volumes = hypervolumes([result.point for result in curve], budget=limit)
        history = [
            Metric(volume, step, milliseconds(result))
            for step, (volume, result) in enumerate(zip(volumes, curve, strict=True), 1)
        ]
        with tracking("did not take the results"):
            for run in runs:
                if stopped():
                    return
                self._write(run)
            new = [("hypervolume", metric) for metric in history[self.volumes :]]
            log_values(self.client, self.parent_id, new, params={}, tags={})
            self.volumes = max(self.volumes, len(history))

    def add(self, runs: Iterable[TrialRun]) -> None:
        """Log runs beside those of the trials, and leave the study's run as it was.

        Raises:
            TrackingError: the store did not take them all.
        """
        with tracking("did not take the training"):
            for run in runs:
                self._write(run)
            if self.before != "RUNNING":
                self.client.set_terminated(self.parent_id, self.before)

    def _write(self, run: TrialRun) -> None:
        known = self.known.get(run.key) or self._create(run)
        status = "FINISHED" if run.complete else "FAILED"
        gone = {name: "" for name in known.tags if name == "nasfuse.cause"}
        tags = _changed({**gone, **self._tags(run)}, known.tags)
        params = {name: v for name, v in run.params.items() if name not in known.params}
        metrics = {n: m for n, m in run.metrics.items() if known.metrics.get(n) != m.value}
        if not (tags or params or metrics) and known.status == status:
            return
        log_values(self.client, known.run_id, metrics.items(), params=params, tags=tags)
        known.tags |= tags
        # they never change: that they are there is all that is asked again, of hundreds of runs
        known.params |= dict.fromkeys(map(sys.intern, params), "")
        known.metrics |= {name: metric.value for name, metric in metrics.items()}
        if known.status != status or metrics.keys() - {"pareto"}:
            self.client.set_terminated(known.run_id, status, run.end)
            known.status = status

    def _create(self, run: TrialRun) -> Known:
        # with all tags, for each later call of MLflow waits several times for the disk
        tags = self._tags(run)
        created = self.client.create_run(self.experiment_id, run.start, tags, run.name)
        self.known[run.key] = Known(created.info.run_id, tags=tags)
        return self.known[run.key]

    def _tags(self, run: TrialRun) -> dict[str, str]:
        return {"mlflow.parentRunId": self.parent_id, "nasfuse.key": run.key, **run.tags}

    def publish(self, folder: Path, note: str) -> None:
        """Keep a report's files with the parent run, and show `note` (Markdown) and the front.

        Raises:
            TrackingError: the server did not take them.
        """
        files = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
        with tracking("did not take the report"):
            for path in files:
                self.client.log_artifact(self.parent_id, str(path), "report")
            self.client.set_tag(self.parent_id, "mlflow.note.content", self._note(note))

    def _note(self, note: str) -> str:
        """Links, the front, its best first, and the note; the cheapest rows give way if need be.

        Of a long description MLflow shows the first lines only, so the front comes first.
        """
        pages = _pages("", self.experiment_id, self.parent_id)
        head = f"[Chart of all trials]({pages.front}) · [interactive page]({pages.page})"
        links = {key: self._address(known.run_id) for key, known in self.known.items()}
        for first in range(len(self.rows) + 1):
            table = markdown_table(self.rows[first:][::-1], links)
            text = "\n\n".join(part for part in (head, table, note) if part).strip()
            if len(text) <= NOTE_CHARACTERS:
                return text
        return note[:NOTE_CHARACTERS]

    def _address(self, run_id: str) -> str:
        return f"#/experiments/{self.experiment_id}/runs/{run_id}?{TRAINING}"

    def close(self, status: Literal["FINISHED", "KILLED", "FAILED"]) -> None:
        """End the parent run; opening it again continues it."""
        with tracking("did not end the run"):
            self.client.set_terminated(self.parent_id, status)


def _changed(wanted: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if known.get(name) != value}


@contextmanager
def tracking(what: str) -> Iterator[None]:
    """MLflow raises its own, SQLAlchemy's, requests' and the system's errors: one kind leaves."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        reason = hide_passwords(first)[:200]
        raise TrackingError(f"the tracking store {what}: {reason}") from error


def open_client(uri: str) -> Any:
    """A client of its own: nothing here touches MLflow's global run and address."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    path = _local_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if path is None:
        return MlflowClient(uri)
    from filelock import FileLock

    # the first client makes the tables, already as it is made: of two at once one would fail
    with FileLock(path.with_name(f"{path.name}.lock")), making(path):
        return MlflowClient(uri if "?" in uri else f"{uri}?timeout={PATIENCE}")


def _offer_view(client: Any, experiment: Any, parent: str) -> None:
    """Let the run list open as a scatter of all trials."""
    name, value = f"mlflow.sharedViewState.{VIEW}", shared_view(parent, experiment.creation_time)
    if experiment.tags.get(name) != value:
        client.set_experiment_tag(experiment.experiment_id, name, value)


class Addresses(NamedTuple):
    """Pages of a server: the trials as a scatter, the study's run, its report, everything."""

    front: str
    note: str
    page: str
    server: str


def _pages(base: str, experiment: str, parent: str) -> Addresses:
    runs = f"{base}#/experiments/{experiment}/runs"
    chart = f"{runs}?{TRAINING}&viewStateShareKey={VIEW}&compareRunsMode=CHART"
    run = f"{runs}/{parent}"
    page = f"{run}/artifacts/report/front.html?{TRAINING}"
    return Addresses(chart, f"{run}?{TRAINING}", page, base)


def study_addresses(base: str, uri: str, study: str, identity: str) -> Addresses:
    """Where the server at `base` shows a study.

    Raises:
        StorageError: the store has no such study.
        TrackingError: the store cannot be read.
    """
    require_store(uri)
    with tracking("cannot be read"):
        client = open_client(uri)
        experiment = find_experiment(client, identity)
        runs = study_runs(client, experiment) if experiment else []
    if not runs:
        raise StorageError(f"the study '{study}' has not been tracked here", where=uri)
    pages = _pages(f"{base}/", runs[0].info.experiment_id, runs[0].info.run_id)
    return pages._replace(server=f"{base}/#/experiments?{TRAINING}")


def require_store(uri: str) -> None:
    """Refuse a local store that is not there, instead of creating an empty one.

    Raises:
        StorageError: no study has been tracked here.
    """
    path = _local_path(uri)
    if path is not None and not path.exists():
        raise StorageError(
            "no study has been tracked here",
            where=str(path),
            why="the store is created by the first search",
            fix="nasfuse search --budget 400MFLOPs",
        )


def _local_path(uri: str) -> Path | None:
    scheme, path = "sqlite:///", uri.partition("?")[0]
    return Path(path.removeprefix(scheme)) if path.startswith(scheme) else None
