"""The main job as functions: what the command line calls, and what Python users call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nasfuse.data.dataset import Dataset
from nasfuse.data.load import load_dataset, runs_code
from nasfuse.errors import DataError, SearchError, UsageError
from nasfuse.explaining import Explanation, write_study_report
from nasfuse.exporting.bundle import Check, Preprocessing, export_result
from nasfuse.finals import verdict
from nasfuse.fusion_map import fusion_map
from nasfuse.planning import Plan, SearchOptions, plan_search
from nasfuse.results import Result, result_front
from nasfuse.searching.logbook import logbook
from nasfuse.searching.running import Resources, run_search, run_swaps
from nasfuse.searching.schedule import Limits, Listener, Progress
from nasfuse.searching.study import Settings, Study, free_name
from nasfuse.searching.swapping import swap_jobs
from nasfuse.swaps import find_swaps, ordered
from nasfuse.tracking import local_uri
from nasfuse.view import View


class Outcome(NamedTuple):
    """What a search left: its study, all results, and why MLflow does not show them, if so."""

    study: Study
    progress: Progress
    view_problem: str | None

    @property
    def front(self) -> list[Result]:
        return result_front(self.progress.results)


def search(options: SearchOptions, *, listen: Listener | None = None) -> Outcome:
    """Search from the beginning; `listen` hears of every change."""
    return start(plan_search(options), listen=listen)


def start(plan: Plan, *, listen: Listener | None = None) -> Outcome:
    """Create the planned study and run it."""
    return _run(_create(plan), plan.dataset, plan.limits, plan.resources, listen)


def _create(plan: Plan) -> Study:
    """The study under its name, or the next free one where another search was faster."""
    folder, settings = plan.folder, plan.settings
    while True:
        try:
            return Study.create(folder, settings)
        except UsageError:
            if plan.named:
                raise
        name = free_name(folder.parent, plan.dataset.name)
        folder, settings = folder.parent / name, settings.model_copy(update={"name": name})


def resume(
    study: Study,
    limits: Limits,
    resources: Resources,
    *,
    data: str | None = None,
    listen: Listener | None = None,
) -> Outcome:
    """Go on with a study, its unfinished trials first. `limits` counts trials from the beginning.

    `data` is where the same images are now, if they moved.

    Raises:
        DataError: the images are not those that the study began with.
        UsageError: they come from a function, which `data` has to name again.
    """
    dataset = images_again(study.settings, data)
    return _run(study, dataset, limits, resources, listen)


def images_again(settings: Settings, data: str | None) -> Dataset:
    """The images of a study, once more, and the same. Raises as `resume` does."""
    source = data or settings.data
    if data is None and runs_code(source):
        raise UsageError(
            f"the images of this study come from a function, {source}",
            where=f"study '{settings.name}'",
            why="code runs only where its name is typed, and not because a study's file names it",
            fix=f"nasfuse resume {settings.name} --data {source}",
        )
    dataset = load_dataset(
        source, side=settings.side, seed=settings.seed, skip_bad=settings.skip_bad
    )
    if dataset.fingerprint != settings.fingerprint:
        raise DataError(
            "the images have changed since the study began",
            where=source,
            why=f"their fingerprint is {dataset.fingerprint}, it was {settings.fingerprint}; "
            "accuracies on different images cannot be compared",
            fix=f"nasfuse search --data {source}   for a new study",
        )
    return dataset


def _run(
    study: Study,
    dataset: Dataset,
    limits: Limits,
    resources: Resources,
    listen: Listener | None,
) -> Outcome:
    view = View(study, tracking_uri(study))
    with study.locked(), logbook(study.folder / "log.txt"), view:

        def tell_all(progress: Progress) -> None:
            view.update(progress.results)
            if listen is not None:
                listen(progress)

        try:
            progress = run_search(
                study, dataset, limits=limits, resources=resources, listen=tell_all
            )
        except SearchError:
            view.finish(study.results, complete=False)
            raise
        view.finish(progress.results, complete=progress.stopping is None)
    return Outcome(study, progress, view.problem)


def tracking_uri(study: Study) -> str:
    """Where MLflow keeps this study: beside all studies unless the search was told otherwise."""
    return study.settings.tracking_uri or local_uri(study.folder.parent)


def choose(study: Study, which: str) -> Result:
    """A result of a study: `best`, a trial's number, or four or more digits of its key.

    The best is the winner of the finals or the cheapest of those tied with it; without finals the
    most accurate network of the front.

    Raises:
        UsageError: there is no such trained network.
    """
    results = study.results
    front = result_front(results)
    if which == "best" and front:
        found = verdict(results, study.settings.recipe.top)
        return found.best.result if found else front[-1]
    firsts = (r for r in results if r.status == "complete" and not r.repeat)
    trained = sorted(firsts, key=lambda r: -r.rung)
    matches = [r for r in trained if str(r.number) == which]
    matches = matches or [r for r in trained if len(which) >= 4 and r.key.startswith(which)]
    if len({r.key for r in matches}) != 1:
        keys, name = ", ".join(f"{r.number} ({r.key})" for r in front), study.folder.name
        raise UsageError(
            f"study '{study.settings.name}' has no trained network '{which}'",
            where=str(study.folder),
            why=f"its front is {keys}" if front else "nothing has been trained in it yet",
            fix=f"nasfuse show {name} best" if front else f"nasfuse resume {name}",
        )
    return matches[0]


@dataclass(frozen=True)
class Swaps:
    """How many swaps of which network are trained, each with how many seeds."""

    count: int
    which: str = "best"
    seeds: int = 5


def explain(study: Study) -> Explanation:
    """What a study shows about fusions by now, which is written to its report as well."""
    results = study.results
    if not any(result.status == "complete" for result in results):
        raise UsageError(
            f"study '{study.settings.name}' has nothing to explain",
            where=str(study.folder),
            why="no network has finished a training in it yet",
            fix=f"nasfuse resume {study.folder.name}",
        )
    return write_study_report(study, results)


def swap(
    study: Study,
    asked: Swaps,
    limits: Limits,
    resources: Resources,
    *,
    data: str | None = None,
    listen: Listener | None = None,
) -> tuple[Progress, str | None]:
    """Train a network and swaps of its fusions at equal cost; the study's report shows them.

    What has been trained is not trained again, so a killed one goes on where it was. Returns why
    MLflow does not show the report as well, if so.

    Raises:
        DataError, UsageError: of the images, as `resume` does.
    """
    original, settings = choose(study, asked.which), study.settings
    swaps = find_swaps(original.architecture, settings.search_space, settings.max_params)
    chosen = ordered(swaps, fusion_map(study.results))[: asked.count]
    if not chosen:
        raise UsageError(
            f"trial {original.number} has no fusion that could be swapped",
            where=str(study.folder),
            why=f"the space '{settings.space_name}' has no choice of fusions where it has skips",
        )
    jobs = swap_jobs(original, chosen, seeds=asked.seeds, top=settings.recipe.top)
    dataset = images_again(settings, data)
    view = View(study, tracking_uri(study))
    with study.locked(), logbook(study.folder / "log.txt"), view:
        told = listen or (lambda progress: None)
        progress = run_swaps(study, dataset, jobs, limits=limits, resources=resources, listen=told)
        view.finish(study.results, complete=True)
    return progress, view.problem


def export(study: Study, which: str, *, out: Path) -> tuple[Result, Check]:
    """Write a trained network as a folder that needs nothing of ours, and check it."""
    result, settings = choose(study, which), study.settings
    rung = settings.recipe.rungs[result.rung]
    trained = (
        f"Weights from the search: {rung.epochs} epoch(s) on {rung.share:.0%} of the training\n"
        f"images, validation accuracy {result.point.accuracy:.4f} (one run)."
    )
    check = export_result(
        result,
        study.trial(result.key) / f"rung{result.rung}.safetensors",
        out,
        preprocessing=Preprocessing(settings.classes, settings.mean, settings.std),
        trained=trained,
    )
    return result, check
