"""What a search will do, checked in every part before anything is written."""

from __future__ import annotations

import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from nasfuse.costs import parse_budget, parse_count, parse_latency, show_macs
from nasfuse.data.batches import measure
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import absolute, load_dataset
from nasfuse.errors import StorageError, UsageError
from nasfuse.files import free_space
from nasfuse.gpus import usable_gpus
from nasfuse.names import OBJECTIVES, SAMPLERS, is_study_name, nearest
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.searching.addresses import remember, require_named
from nasfuse.searching.cluster import GPU_SHARE, Resources
from nasfuse.searching.extremes import check_budget
from nasfuse.searching.forecast import Forecast, disk_needed, forecast
from nasfuse.searching.limits import Limits
from nasfuse.searching.quickest import check_latency
from nasfuse.searching.sharing import Sharing, share_gpus
from nasfuse.searching.storage import require_database, with_driver
from nasfuse.searching.study import Settings, free_name
from nasfuse.searching.worker import versions
from nasfuse.space import load_space, read_space
from nasfuse.tracking import local_uri

FEW = 20  # networks that any search is expected to try
DEFAULT_SECONDS = 420.0  # of a search that is given neither trials nor a time


@dataclass(frozen=True)
class SearchOptions:
    """What a search is asked for; the command line's options have the same names.

    `budget` is text such as 400MFLOPs, `data` the name of a data set, a folder of images, a `.npz`
    file or module:function; of a folder's images up to `skip_bad` may be unreadable.
    `space` the name of a space or a file, `recipe` a file, `epochs` those of a full training.
    `objective` is the cost that the front weighs against accuracy: macs, params or latency, which
    is measured; `front_from` is a budget such as 100MFLOPs at which it begins. `max_params` is text
    such as 5M, `max_latency` such as 20ms, for one image.
    `storage` is the address of a PostgreSQL database for proposals, which else are in the study's
    folder; neither it nor `tracking_uri` may have a password.
    Without `trials` and `seconds` a search takes seven minutes; without `workers` it uses every
    core, or what the GPUs hold.
    """

    budget: str
    data: str = "sample"
    skip_bad: int = 0
    space: str = "default"
    name: str | None = None
    trials: int | None = None
    seconds: float | None = None
    workers: int | None = None
    gpus_per_trial: float | None = None
    sampler: str = SAMPLERS[0]
    objective: str = "macs"
    front_from: str | None = None
    max_params: str | None = None
    max_latency: str | None = None
    seed: int = 0
    epochs: int | None = None
    recipe: Path | None = None
    ray_address: str | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    studies: Path = Path("studies")


class Plan(NamedTuple):
    """A search that was checked and not yet started: nothing has been written."""

    settings: Settings
    dataset: Dataset
    folder: Path
    limits: Limits
    resources: Resources
    named: bool  # by the user; else another free name is as good
    sharing: Sharing | None = None  # of this machine's GPUs, where it was not asked for


def plan_search(options: SearchOptions) -> Plan:
    """Check everything a search needs, load its images, and write nothing.

    Raises:
        NasfuseError: of the kind that fits what is wrong.
    """
    budget = parse_budget(options.budget)
    front_from = _front_from(options.front_from, budget)
    max_params = parse_count(options.max_params)
    max_latency = parse_latency(options.max_latency)
    space = load_space(options.space)
    # before the images are loaded, as if they were those that cost least: it takes no time
    check_budget(space.for_images(channels=1, classes=2), budget, max_params)
    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    _check_options(options)
    storage, tracking_uri = _databases(options)
    limits = limits_of(options.trials, options.seconds)
    share = _gpus_per_trial(options)
    resources = resources_of(options.workers, share, options.ray_address)
    side = 2 * space.resolution  # folders are stored at twice the side: scaling enlarges it
    dataset = load_dataset(options.data, side=side, seed=options.seed, skip_bad=options.skip_bad)
    space = space.for_images(channels=dataset.channels, classes=len(dataset.classes))
    check_budget(space, budget, max_params)
    if max_latency is not None and resources.address is None:
        check_latency(
            space, max_latency, torch.device("cuda" if resources.gpus_per_trial else "cpu")
        )
    normalisation = measure(dataset.train)
    name = options.name or free_name(options.studies, dataset.name)
    settings = Settings(
        id=secrets.token_hex(8),
        name=name,
        space_name=space.name,
        space=read_space(options.space),
        budget=budget,
        data=absolute(options.data),
        side=side,
        stored=dataset.train.images.shape[-1],
        skip_bad=options.skip_bad,
        fingerprint=dataset.fingerprint,
        validation=len(dataset.validation),
        classes=dataset.classes,
        mean=normalisation.mean,
        std=normalisation.std,
        recipe=_for_images(recipe, options.epochs, len(dataset.train)),
        sampler=options.sampler,
        seed=options.seed,
        tracking_uri=_absolute_store(tracking_uri),
        storage=storage,
        versions=versions(),
        trials=options.trials,
        seconds=options.seconds,
        workers=options.workers,
        gpus_per_trial=share,
        ray_address=options.ray_address,
        objective=options.objective,  # type: ignore[arg-type]  # checked above
        front_from=front_from,
        max_params=max_params,
        max_latency=max_latency,
    )
    folder, named = options.studies / name, options.name is not None
    check_room(settings, folder, limits, resources)
    plan = Plan(settings, dataset, folder, limits, resources, named)
    measures = share is None and options.ray_address is None
    return _shared(plan) if measures and usable_gpus() else plan


def _gpus_per_trial(options: SearchOptions) -> float | None:
    """As asked for; a whole GPU where latency is measured, which neighbours would lengthen."""
    timed = options.objective == "latency" or options.max_latency is not None
    if options.gpus_per_trial is None and options.ray_address is None and timed and usable_gpus():
        return 1.0
    return options.gpus_per_trial


def _shared(plan: Plan) -> Plan:
    """With as many trials on each GPU as its memory holds, which a resumed search takes up."""
    sharing = share_gpus(plan.settings, plan.dataset)
    settings = plan.settings.model_copy(update={"gpus_per_trial": sharing.share})
    resources = resources_of(settings.workers, sharing.share, None)
    return plan._replace(settings=settings, resources=resources, sharing=sharing)


def foresee(plan: Plan) -> Forecast:
    """What a planned search will take, from a few batches of training; writes nothing."""
    workers = plan.resources.workers or 1
    device = torch.device("cuda" if plan.resources.gpus_per_trial else "cpu")
    return forecast(plan.settings, plan.dataset, plan.limits, workers, device=device)


def check_room(settings: Settings, folder: Path, limits: Limits, resources: Resources) -> None:
    """Refuse a search for which the disk has too little room, before anything is written.

    How many networks a time limit lasts for is not known before; it is asked for room for a few.

    Raises:
        StorageError: with the space needed and free.
    """
    trials = limits.trials or FEW
    needed = disk_needed(settings, trials, resources.workers or 1)
    free = free_space(folder)
    if free < needed:
        raise StorageError(
            "the disk has too little room for this search",
            where=str(folder),
            why=f"{trials} networks need about {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB "
            "are free",
            fix="--studies FOLDER   on a larger disk, or fewer --trials",
        )


def _for_images(recipe: Recipe, epochs: int | None, images: int) -> Recipe:
    """With these epochs, and with rungs for so many images unless its file says which."""
    own_rungs = "rungs" in recipe.model_fields_set  # `with_epochs` sets them too
    recipe = recipe.with_epochs(epochs) if epochs else recipe
    return recipe if own_rungs else recipe.for_images(images, as_long=epochs is not None)


def _check_options(options: SearchOptions) -> None:
    if options.sampler not in SAMPLERS:
        raise UsageError(
            f"there is no sampler '{options.sampler}'",
            where="--sampler",
            why=f"the samplers are {', '.join(SAMPLERS)}",
            fix=f"--sampler {nearest(options.sampler, SAMPLERS) or SAMPLERS[0]}",
        )
    if options.objective not in OBJECTIVES:
        raise UsageError(
            f"there is no objective '{options.objective}'",
            where="--objective",
            why=f"the front weighs accuracy against one of {', '.join(OBJECTIVES)}",
            fix=f"--objective {nearest(options.objective, OBJECTIVES) or OBJECTIVES[0]}",
        )
    if not 0 <= options.seed < 2**31:
        raise UsageError(
            f"{options.seed} cannot be the seed",
            where="--seed",
            why="a seed is a number from 0 to 2147483647",
            fix="--seed 0",
        )
    if options.name and not is_study_name(options.name):
        raise UsageError(
            f"'{options.name}' cannot be the name of a study",
            where="--name",
            why="a study is a folder of its own: no slashes, no dot in front",
            fix="--name my-study   and --studies for another place",
        )


def _front_from(text: str | None, budget: int) -> int | None:
    """MACs at which the front begins; None where that was not said."""
    if text is None:
        return None
    macs = parse_budget(text, "--front-from")
    if macs > budget:
        raise UsageError(
            f"the front cannot begin at {show_macs(macs)} MACs",
            where="--front-from",
            why=f"the budget is {show_macs(budget)} MACs",
            fix=f"--front-from {show_macs(budget)}   for networks of the whole budget only",
        )
    return macs


def _databases(options: SearchOptions) -> tuple[str | None, str | None]:
    """The addresses of proposals and of MLflow's runs, as they are kept; the former answers."""
    storage = with_driver(options.storage, "--storage")
    tracking_uri = with_driver(options.tracking_uri, "--tracking-uri")
    if tracking_uri is None:
        local_uri(options.studies)  # refuses a folder that it could not name
    if storage is None:
        return None, tracking_uri
    require_database(storage)
    if storage == tracking_uri:
        raise UsageError(
            "proposals and MLflow's runs need two databases",
            where=f"--storage and --tracking-uri {storage}",
            why="Optuna and MLflow both keep the version of their tables in one of the same name",
            fix="createdb mlflow   and its address as --tracking-uri",
        )
    return storage, tracking_uri


def _absolute_store(uri: str | None) -> str | None:
    """A store in a file, such as sqlite:///runs.db, by its whole path."""
    scheme = "sqlite:///"
    if uri is None or not uri.startswith(scheme):
        return uri
    return scheme + str(Path(uri.removeprefix(scheme)).resolve())


def limits_of(trials: int | None, seconds: float | None) -> Limits:
    """What was asked for, or seven minutes."""
    return Limits(trials, DEFAULT_SECONDS if trials is None and seconds is None else seconds)


def resources_of(
    workers: int | None, gpus_per_trial: float | None, ray_address: str | None
) -> Resources:
    """As asked for; else a worker a core, or as many as the GPUs hold at 1/4 of one each, which
    `plan_search` replaces by what it measures. Of a cluster all is known when it has been joined.

    Raises:
        UsageError: no trial could ever start.
    """
    if ray_address is not None:
        if ray_address.startswith("ray://"):
            raise UsageError(
                "a search cannot run through Ray's client",
                where=f"--ray-address {ray_address}",
                why="it has to run on a node of the cluster",
                fix="--ray-address auto   on such a node",
            )
        return Resources(workers, gpus_per_trial, ray_address)
    gpus = usable_gpus()
    share = gpus_per_trial if gpus_per_trial is not None else (GPU_SHARE if gpus else 0.0)
    if share > gpus:
        raise UsageError(
            f"a trial cannot have {share:g} GPUs",
            where="--gpus-per-trial",
            why=f"this machine has {gpus} that torch can use",
            fix=f"--gpus-per-trial {min(1, gpus)}",
        )
    room = math.floor(gpus / share) if share else cores()
    return Resources(workers or max(1, min(cores(), room)), share)


def cores() -> int:
    """CPU cores that this process may use: of the machine, its affinity and its container."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    count = len(allowed) if allowed else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, max(1, int(limit) // int(period)))
    return count


def continuation(
    settings: Settings,
    *,
    limits: Limits,
    workers: int | None,
    gpus_per_trial: float | None,
    ray_address: str | None,
) -> tuple[Limits, Resources]:
    """What a resumed search runs with: as asked for now, else as its first run was.

    Raises:
        UsageError: it ran on a cluster that this user has never named.
    """
    if limits.trials is None and limits.seconds is None:
        limits = limits_of(settings.trials, settings.seconds)
    share = settings.gpus_per_trial if gpus_per_trial is None else gpus_per_trial
    remember(ray_address)
    address = ray_address or settings.ray_address
    if address:
        require_named(address, settings.name)
    return limits, resources_of(workers or settings.workers, share, address)
