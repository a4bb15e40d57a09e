"""The main job as functions: what the command line calls, and what Python users call."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nasfuse.choosing import choose, find_network
from nasfuse.commands import next_commands, sync_command
from nasfuse.data.dataset import Dataset
from nasfuse.errors import SearchError, SetupError, UsageError
from nasfuse.explaining import Explanation, write_study_report
from nasfuse.exporting.bundle import export_network
from nasfuse.exporting.formats import parse_formats
from nasfuse.exporting.origin import (
    Origin,
    Weights,
    origin_of_training,
    origin_of_trial,
    with_images,
)
from nasfuse.exporting.verification import Check
from nasfuse.full_training import FullTraining, Moment
from nasfuse.fusion_map import fusion_map
from nasfuse.planning import Plan, SearchOptions, plan_search
from nasfuse.registering import register_model, require_model_name
from nasfuse.results import Result, result_front
from nasfuse.searching.addresses import remember, require_named
from nasfuse.searching.cluster import Resources
from nasfuse.searching.limits import Limits, keep_limits
from nasfuse.searching.logbook import logbook
from nasfuse.searching.running import run_search, run_swaps
from nasfuse.searching.schedule import Listener, Progress
from nasfuse.searching.study import Study, free_name, images_again
from nasfuse.searching.swapping import swap_jobs
from nasfuse.swaps import find_swaps, ordered
from nasfuse.tracking import TrackingError, local_uri
from nasfuse.trained import RESULT, Trained, read_trained
from nasfuse.training_plan import TrainOptions, plan_training
from nasfuse.view import View, show_all, show_trained


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
    remember(settings.tracking_uri, settings.storage, settings.ray_address)
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
    """Go on with a study, its unfinished proposals first; `limits` counts trials of all runs.

    `data` is where the same images are now, if they moved.

    Raises:
        DataError: the images are not those that the study began with.
        StorageError: it was begun by an older nasfuse.
        UsageError: the images come from a function, which `data` has to name again.
    """
    study.require_resumable()
    dataset = images_again(study.settings, data, again=next_commands(study)["resume"])
    return _run(study, dataset, limits, resources, listen)


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

        keep_limits(study, limits)
        study.mark(complete=False)
        try:
            progress = run_search(
                study, dataset, limits=limits, resources=resources, listen=tell_all
            )
        except SearchError:
            view.finish(study.results, complete=False)
            raise
        study.mark(complete=progress.stopping is None)
        view.finish(progress.results, complete=progress.stopping is None)
    return Outcome(study, progress, view.problem)


def tracking_uri(study: Study) -> str:
    """Where MLflow keeps this study: beside all studies unless the search was told otherwise.

    Raises:
        UsageError: somewhere that this user has never named.
    """
    told = study.settings.tracking_uri
    return require_named(told, study.settings.name) if told else local_uri(study.folder.parent)


def sync(study: Study) -> int:
    """Make MLflow show all that the study's folder has; returns how many runs it shows.

    What a killed search left is taken in first, and runs that it left open are ended.

    Raises:
        SetupError: the tracking server or store cannot be used; the study is as it was.
        StorageError: a search runs in the study.
    """
    uri = tracking_uri(study)
    with study.locked(), logbook(study.folder / "log.txt"):
        study.recover()
        try:
            return show_all(study, uri)
        except TrackingError as error:
            raise SetupError(
                "MLflow does not take the study",
                where=uri,
                why=str(error),
                fix=f"start the server, then: {sync_command(study)}",
            ) from None


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
            fix=next_commands(study)["resume"],
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
    again = next_commands(study, swaps=asked.count)["explain"]
    dataset = images_again(settings, data, again=again)
    view = View(study, tracking_uri(study))
    with study.locked(), logbook(study.folder / "log.txt"), view:
        told = listen or (lambda progress: None)
        progress = run_swaps(study, dataset, jobs, limits=limits, resources=resources, listen=told)
        view.finish(study.results, complete=study.complete is not False)
    return progress, view.problem


@dataclass(frozen=True)
class ExportOptions:
    """What is to be exported; the command line's options have the same names.

    `network` is a study, a trial (of `study`, by default the newest) or the folder of a full
    training. `weights` are the best available, only those of a full training (`trained`) or those
    of the search (`search`).
    """

    out: Path
    network: str = "best"
    trial: str | None = None
    study: str | None = None
    formats: str = "python,onnx"
    weights: Weights = "best-available"
    latency: bool = False
    register: str | None = None
    studies: Path = Path("studies")


class Exported(NamedTuple):
    """A network that was written to a folder: its origin, what was checked, where it is registered.

    `address` is MLflow's, such as models:/name/1.
    """

    origin: Origin
    check: Check
    address: str | None = None


def export(options: ExportOptions) -> Exported:
    """Write a trained network as a folder that needs nothing of ours, and check it.

    Raises:
        NasfuseError: of the kind that fits what is wrong; nothing is then left behind, but a whole
            export that only could not be registered.
    """
    if options.register is not None:
        require_model_name(options.register)
    named = (options.formats, "mlflow") if options.register else (options.formats,)
    formats = parse_formats(",".join(named))
    origin, study = _origin(options)
    if options.register and study is None:
        raise UsageError(
            "only a network of a study can be registered",
            where=f"--register {options.register}",
            why="a study has an experiment in MLflow, and this training has no study",
            fix="mlflow.register_model   on the folder mlflow/ of the export",
        )
    uri = tracking_uri(study) if options.register and study else None  # may be refused
    origin, validation = with_images(origin)
    check = export_network(
        origin, options.out, formats, validation=validation, latency=options.latency
    )
    if not (options.register and study and uri):
        return Exported(origin, check)
    address = register_model(
        options.out / "mlflow",
        options.register,
        uri=uri,
        identity=study.settings.id,
        tags={"nasfuse.key": origin.architecture.key, "nasfuse.weights": origin.kind},
    )
    return Exported(origin, check, address)


def _origin(options: ExportOptions) -> tuple[Origin, Study | None]:
    folder = Path(options.network)
    if options.study is None and (folder / RESULT).is_file():
        return origin_of_training(folder, read_trained(folder)), None
    choice = find_network(
        options.network, trial=options.trial, study=options.study, studies=options.studies
    )
    if choice.study is None or choice.result is None:
        raise UsageError(
            f"'{options.network}' has no weights to export",
            where="NETWORK",
            why="it is an architecture, which nobody has trained yet",
            fix=f"nasfuse train {shlex.quote(options.network)} --data sample --out trained/ && "
            "nasfuse export trained/ --out net/",
        )
    return origin_of_trial(choice.study, choice.result, options.weights), choice.study


class Finished(NamedTuple):
    """What a full training left: its result, its folder, and why MLflow does not show it, if so."""

    trained: Trained
    folder: Path
    view_problem: str | None


def train(
    options: TrainOptions,
    *,
    announce: Callable[[FullTraining], None] | None = None,
    listen: Callable[[Moment], None] | None = None,
) -> Finished:
    """Train a network fully, or go on with that; `listen` hears of every epoch.

    Raises:
        NasfuseError: of the kind that fits what is wrong.
    """
    planned, study = plan_training(options)
    if announce is not None:
        announce(planned)
    trained = planned.run(listen)
    problem = None if study is None else show_trained(study, tracking_uri(study), trained)
    return Finished(trained, planned.folder, problem)
