"""A study's runs in MLflow: its experiment, its own run, and one for each trial, once each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasfuse.trial_runs import Metric

BATCH = 100  # values of one kind that one call may carry


@dataclass
class Known:
    """What the server has of one run."""

    run_id: str
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def study_experiment(client: Any, study: str, identity: str, artifacts: Path | None) -> Any:
    """The study's own one; its name has the identity where another study has the plain name."""
    found = find_experiment(client, identity)
    if found is None:
        name = study
        if client.get_experiment_by_name(f"nasfuse/{study}") is not None:
            name = f"{study} {identity[:6]}"
        place = (artifacts / name).absolute().as_uri() if artifacts else None
        tags = {"nasfuse.study": identity}
        created = client.create_experiment(f"nasfuse/{name}", place, tags)
        found = client.get_experiment(created)
    if found.lifecycle_stage == "deleted":  # in the UI; its name stays taken
        client.restore_experiment(found.experiment_id)
    return found


def find_experiment(client: Any, identity: str) -> Any | None:
    from mlflow.entities import ViewType

    where = f"tags.`nasfuse.study` = '{identity}'"
    return next(iter(client.search_experiments(ViewType.ALL, filter_string=where)), None)


def study_run(client: Any, experiment: Any, study: str, settings: Mapping[str, str]) -> Known:
    """The study's run, begun or continued, with the settings as they are now."""
    if not study_runs(client, experiment):
        tags = {"nasfuse.kind": "study"}
        client.create_run(experiment.experiment_id, None, tags, study)
    oldest, *again = study_runs(client, experiment)
    _delete(client, again)
    known = _known(oldest)
    if known.status != "RUNNING":
        client.update_run(known.run_id, "RUNNING")
    new = {name: value for name, value in settings.items() if name not in known.params}
    # MLflow's parameters are for ever: what a later run of the study changed becomes a tag
    later = {f"nasfuse.now.{n}": v for n, v in settings.items() if known.params.get(n, v) != v}
    log_values(client, known.run_id, [], params=new, tags=later)
    return known


def study_runs(client: Any, experiment: Any) -> list[Any]:
    """The study's run; of several the first is the one that counts."""
    return list(_oldest_first(client, experiment, "tags.`nasfuse.kind` = 'study'"))


def _oldest_first(client: Any, experiment: Any, where: str = "") -> Iterator[Any]:
    order, token = ["attributes.start_time ASC"], None  # MLflow adds the identity
    while True:
        page = client.search_runs(
            [experiment.experiment_id], where, order_by=order, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _delete(client: Any, runs: Iterable[Any]) -> None:
    """Take away what was begun once more.

    So it is where the answer to the first call was lost: MLflow's client asks again by itself, and
    so does whoever is told that the call failed.
    """
    for run in runs:
        client.delete_run(run.info.run_id)


def _known(run: Any) -> Known:
    data = run.data
    tags, params, metrics = dict(data.tags), dict(data.params), dict(data.metrics)
    return Known(run.info.run_id, run.info.status, tags, params, metrics)


def trials_known(client: Any, experiment: Any) -> dict[str, Known]:
    """The trials that the server has, by key, whichever run they were begun under."""
    known: dict[str, Known] = {}
    again = []  # deleted when all pages are read: they are counted from the first run
    for run in _oldest_first(client, experiment):
        key = run.data.tags.get("nasfuse.key")
        if key in known:
            again.append(run)
        elif key is not None:  # others may add runs
            known[key] = _known(run)
    _delete(client, again)
    return known


def log_values(
    client: Any,
    run_id: str,
    metrics: Iterable[tuple[str, Metric]],
    *,
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """One call for all values, or a few where there are more than one call may carry."""
    from mlflow.entities import Metric as Value
    from mlflow.entities import Param, RunTag

    values = [Value(n, float(m.value), m.milliseconds, m.step) for n, m in metrics]
    parameters = [Param(name, value) for name, value in params.items()]
    labels = [RunTag(name, value) for name, value in tags.items()]
    for start in range(0, max(len(values), len(parameters), len(labels)), BATCH):
        part = slice(start, start + BATCH)
        client.log_batch(run_id, values[part], parameters[part], labels[part])
