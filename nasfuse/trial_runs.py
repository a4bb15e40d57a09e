"""What MLflow is told, computed: the tags, parameters and metrics of a trial, and their chart."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nasfuse.results import Result, Step, result_front
from nasfuse.summary import fusion_text
from nasfuse.tables import plain
from nasfuse.trained import Trained

NOTE = 5000  # bytes of a note that every store of MLflow takes


@dataclass(frozen=True)
class Metric:
    """One value; of several with the same name, the one with the highest step is shown."""

    value: float
    step: int
    milliseconds: int


@dataclass(frozen=True)
class TrialRun:
    """All that is shown of one trial; `start` and `end` in milliseconds since 1970."""

    key: str
    name: str
    start: int
    end: int
    complete: bool
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, Metric]


def trial_runs(results: Sequence[Result], final_rung: int) -> Iterator[TrialRun]:
    """One entry a trial, in order of first appearance; of a step's results the last counts.

    Only results of `final_rung` give the metric `accuracy`, so that a chart never mixes rungs.
    """
    trials: dict[str, dict[Step, Result]] = {}
    for result in results:
        steps = trials.setdefault(result.key, {})
        steps.pop(result.step, None)  # so that the newest comes last
        steps[result.step] = result
    best = {result.key for result in result_front(results)}
    step, now = len(results), max(map(milliseconds, results), default=0)
    for key, steps in trials.items():  # one after the other: all at once they would be large
        yield _trial_run(list(steps.values()), final_rung, pareto=Metric(key in best, step, now))


def training_runs(trained: Trained) -> Iterator[TrialRun]:
    """One entry for each seed of a full training.

    Its accuracies have names of their own: a chart of the trials never shows them.
    """
    settings = trained.settings
    end = round(datetime.fromisoformat(trained.finished).timestamp() * 1000)
    of = "" if settings.number is None else f" of trial {settings.number}"
    asked = ("epochs", "seeds", "seed", "all_data", "fingerprint")
    for index, run in enumerate(trained.runs):
        splits = {"validation": trained.validation, "test": trained.test}
        values = {
            **{f"{name}_accuracy": s.accuracies[index] for name, s in splits.items() if s},
            **{f"{name}_accuracy_mean": s.mean for name, s in splits.items() if s},
            **{
                f"{name}_accuracy_deviation": s.deviation
                for name, s in splits.items()
                if s and s.deviation is not None
            },
            "final_loss": run.epochs[-1].loss,
            "mmacs": trained.macs / 1e6,
            "mparams": trained.params / 1e6,
            "seconds": run.seconds,
        }
        yield TrialRun(
            key=f"{trained.key}-{settings.digest}-{run.seed + 1}",
            name=f"training{of}, seed {run.seed + 1}",
            start=end - round(1000 * run.seconds),
            end=end,
            complete=True,
            tags={
                "nasfuse.kind": "training",
                "nasfuse.trial": trained.key,
                "mlflow.note.content": _classes(trained),
            },
            params={name: str(getattr(settings, name)) for name in asked},
            metrics={name: Metric(value, settings.epochs, end) for name, value in values.items()},
        )


def _classes(trained: Trained) -> str:
    """How well each class is known and what it is taken for, over all seeds, as Markdown."""
    lines, names = [], [plain(name) for name in trained.settings.classes]
    for split, scores in (("Test", trained.test), ("Validation", trained.validation)):
        if scores is None:
            continue
        lines += [f"{split} accuracy {scores.text}; answers by true class (rows), all seeds:", ""]
        lines += [f"| | right | {' | '.join(names)} |", f"|---|{'---|' * (1 + len(names))}"]
        for name, share, row in zip(names, scores.per_class, scores.confusion, strict=True):
            lines.append(f"| {name} | {share:.1%} | {' | '.join(map(str, row))} |")
        lines.append("")
    text = "\n".join(lines)
    return text if len(text.encode()) <= NOTE else "Accuracy by class: see trained.json"


def milliseconds(result: Result) -> int:
    """When it ended, since 1970."""
    return round(datetime.fromisoformat(result.finished).timestamp() * 1000)


def _trial_run(rungs: Sequence[Result], final_rung: int, *, pareto: Metric) -> TrialRun:
    first, last = rungs[0], rungs[-1]
    # a repeat of the finals that failed does not make the network one that did
    own = next((one for one in reversed(rungs) if not one.repeat), last)
    metrics = {name: value for one in rungs for name, value in _metrics(one, final_rung)}
    seconds = Metric(sum(one.seconds for one in rungs), last.rung, milliseconds(last))
    return TrialRun(
        key=first.key,
        name=f"trial {first.number}",
        start=milliseconds(first) - round(first.seconds * 1000),
        end=milliseconds(last),
        complete=own.status == "complete",
        tags=_tags(own, pareto="yes" if pareto.value else "no"),
        params={**dict(flatten(first.architecture.document())), "seed": str(first.seed)},
        metrics={**metrics, "seconds": seconds, "pareto": pareto},
    )


def _metrics(one: Result, final_rung: int) -> Iterator[tuple[str, Metric]]:
    if one.repeat:  # a finalist's, with a seed of its own
        if one.accuracy is not None:
            yield f"accuracy_repeat{one.repeat}", Metric(one.accuracy, one.rung, milliseconds(one))
        return
    values: dict[str, float | None] = {
        "mmacs": one.macs / 1e6,
        "mparams": one.params / 1e6,
        "mthop": one.thop / 1e6,
        "latency_ms": one.latency,
        f"accuracy_rung{one.rung}": one.accuracy,
        "accuracy": one.accuracy if one.rung == final_rung else None,
        "loss": one.loss,
        "calibrated_loss": one.calibrated_loss,
        "train_loss": one.train_loss,
    }
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            yield name, Metric(value, one.rung, milliseconds(one))


def _tags(one: Result, *, pareto: str) -> dict[str, str]:
    cause = {"nasfuse.cause": one.cause} if one.cause else {}
    return {
        "nasfuse.status": one.status,
        "nasfuse.rung": str(one.rung),
        "nasfuse.origin": one.origin,
        "fusions": fusion_text(one.architecture),
        "pareto": pareto,
        **cause,
    }


def flatten(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a document by path: ("stages.1.block.kind", "residual")."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in items:
            yield from flatten(part, f"{path}.{name}" if path else str(name))
    else:
        yield sys.intern(path), sys.intern(str(value))  # the same of most trials, kept once


def shared_view(parent: str, created: int) -> str:
    """A saved view of the run list: the trials of the run `parent` as a scatter.

    The format is the UI's own and not documented (MLflow 3.17): a test opens it in a browser.
    """
    envelope = {"name": "Front: accuracy over MACs", "createdAt": created, "updatedAt": created}
    return json.dumps({**envelope, "state": json.dumps(_view_state(parent))})


def _view_state(parent: str) -> dict[str, Any]:
    """Scatters over `mmacs` of both accuracies, and a table that has the front on top.

    `accuracy` is that of full trainings; the first rung's is known of every trial.
    """
    section = {"uuid": "nasfuse-front", "name": "Front", "display": True, "isReordered": False}
    # MLflow adds a chart for every other metric to this one: folded up, they take no time
    others = {**section, "uuid": "nasfuse-others", "name": "Model metrics", "display": False}
    metrics = ("accuracy", "accuracy_rung0")
    columns = ["metrics.`accuracy`", "metrics.`mmacs`", "tags.`pareto`", "tags.`fusions`"]
    return {
        "compareRunCharts": [_scatter(metric, section["uuid"]) for metric in metrics],
        "compareRunSections": [{**section, "columns": 2, "cardHeight": 400}, others],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "useGroupedValuesInCharts": False,
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        "orderByKey": "metrics.`pareto`",
        "orderByAsc": False,
        "selectedColumns": columns,
    }


def _scatter(metric: str, section: object) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"nasfuse-{metric}",
        "metricSectionId": section,
        "xaxis": {"key": "mmacs", "type": "METRIC"},
        "yaxis": {"key": metric, "type": "METRIC"},
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 500,
    }
