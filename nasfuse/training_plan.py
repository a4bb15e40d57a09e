"""What a full training will do, checked in every part before anything is written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nasfuse.architecture import Architecture
from nasfuse.choosing import Choice, find_network
from nasfuse.commands import next_commands
from nasfuse.data.batches import Normalisation, measure
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import absolute, load_dataset, require_test
from nasfuse.errors import UsageError
from nasfuse.finals import finalists
from nasfuse.full_training import FullTraining, check_fits
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.searching.study import Study, find_study, images_again
from nasfuse.trained import TrainingSettings

FINALISTS = "finalists"  # stands where one network's name does
EPOCHS, SEEDS = 20, 3  # where nothing else is asked for; never fewer epochs than the search's
MAX_SEEDS = 100


@dataclass(frozen=True)
class TrainOptions:
    """What a full training is asked for; the command line's options have the same names.

    `network` is a study, a trial (of `study`, by default the newest) or an architecture, which
    needs `data` and `out`; or `finalists`, of which `each_finalist` makes one training each. With
    `data` other images than the study's are used, and the classes and channels of the network
    become theirs. `all_data` trains on the validation images as well.
    """

    network: str = "best"
    trial: str | None = None
    study: str | None = None
    data: str | None = None
    skip_bad: int | None = None
    epochs: int | None = None
    seeds: int = SEEDS
    seed: int | None = None
    all_data: bool = False
    recipe: Path | None = None
    out: Path | None = None
    studies: Path = Path("studies")


def each_finalist(options: TrainOptions) -> list[TrainOptions]:
    """The options of each training where the finalists of a study are asked for, else themselves.

    They are the most accurate networks of the search and the best hand-made one. Below `out` each
    has a folder of its own.

    Raises:
        UsageError: there is no such study, or nothing has been trained fully in it.
    """
    if FINALISTS not in (options.network, options.trial):
        return [options]
    name = options.study if options.network == FINALISTS else options.network
    study = find_study(options.studies, name)
    found = finalists(study.results, study.settings.recipe.top)
    if not found:
        raise UsageError(
            f"study '{study.settings.name}' has no finalists",
            where=str(study.folder),
            why="no network has had a full training in it yet",
            fix=next_commands(study)["resume"],
        )
    named = replace(options, study=name or study.folder.name, trial=None)
    return [
        replace(named, network=result.key, out=options.out and options.out / result.key)
        for result in found
    ]


def plan_training(options: TrainOptions) -> tuple[FullTraining, Study | None]:
    """Check everything, load the images, and write nothing; with the study, where there is one.

    Raises:
        NasfuseError: of the kind that fits what is wrong.
    """
    _check(options)
    choice = find_network(
        options.network, trial=options.trial, study=options.study, studies=options.studies
    )
    dataset, normalisation, source = _images(options, choice)
    known = choice.study.settings if choice.study else None
    architecture = _fitted(choice.architecture, dataset) if options.data else choice.architecture
    recipe = known.recipe if known else Recipe()
    full = recipe.rungs[recipe.top].epochs
    if options.recipe:
        recipe = read_recipe(options.recipe)
        if "rungs" in recipe.model_fields_set:  # else it does not say how long
            full = recipe.rungs[recipe.top].epochs
    recipe = recipe.at(recipe.top)
    settings = TrainingSettings(
        study=known.name if known else None,
        number=choice.result.number if choice.result else None,
        architecture=architecture,
        data=source.data,
        side=source.side,
        split_seed=source.seed,
        skip_bad=source.skip_bad,
        stored=dataset.train.images.shape[-1],
        fingerprint=dataset.fingerprint,
        train=len(dataset.train),
        validation=len(dataset.validation),
        classes=dataset.classes,
        mean=normalisation.mean,
        std=normalisation.std,
        recipe=recipe,
        epochs=options.epochs or max(EPOCHS, full),
        seeds=options.seeds,
        seed=source.seed if options.seed is None else options.seed,
        all_data=options.all_data,
    )
    check_fits(settings, dataset)
    folder = _folder(options, choice.study, settings)
    planned = FullTraining(settings, dataset, folder, _expected(options, choice, settings))
    if not planned.finished:  # now, and not when all seeds are trained
        require_test(source.data, dataset, side=source.side, skip_bad=source.skip_bad)
    return planned, choice.study


def _expected(options: TrainOptions, choice: Choice, settings: TrainingSettings) -> float | None:
    """About the seconds, by how long the search trained the network on the same images."""
    if choice.study is None or choice.result is None or options.data or options.recipe:
        return None
    before = choice.result
    passes = choice.study.settings.recipe.work(before.rung)
    return before.seconds / passes * settings.epochs * settings.seeds


def _check(options: TrainOptions) -> None:
    limits = (("epochs", options.epochs, 1, 100_000), ("seeds", options.seeds, 1, MAX_SEEDS))
    for name, value, least, most in (*limits, ("seed", options.seed, 0, 2**31 - 1)):
        if value is not None and not least <= value <= most:
            raise UsageError(
                f"{value} cannot be the number of {name}" if name != "seed" else "no such seed",
                where=f"--{name} {value}",
                why=f"it is a number from {least} to {most}",
                fix=f"--{name} {least}",
            )


class _Source(NamedTuple):
    """What `load_dataset` is told."""

    data: str
    side: int
    seed: int
    skip_bad: int


def _images(options: TrainOptions, choice: Choice) -> tuple[Dataset, Normalisation, _Source]:
    """The images, how they are normalised, and where they come from."""
    if choice.study is not None:
        return _of_study(options, choice.study)
    if options.data is None:
        raise UsageError(
            f"there are no images to train '{options.network}' on",
            where="--data",
            why="an architecture has no study that would name them",
            fix="--data sample   or a folder of images",
        )
    # folders are stored at twice the side that the network wants, as in a search
    side, seed = 2 * choice.architecture.resolution, options.seed or 0
    dataset = load_dataset(options.data, side=side, seed=seed, skip_bad=options.skip_bad or 0)
    source = _Source(absolute(options.data), side, seed, options.skip_bad or 0)
    return dataset, measure(dataset.train), source


def _of_study(options: TrainOptions, study: Study) -> tuple[Dataset, Normalisation, _Source]:
    """Those of the study, wherever they are now, or others."""
    known = study.settings
    own = Normalisation(known.mean, known.std)
    skip_bad = known.skip_bad if options.skip_bad is None else options.skip_bad
    if options.data is None:
        source = _Source(known.data, known.side, known.seed, skip_bad)
        return images_again(known, None, again=next_commands(study)["train"]), own, source
    dataset = load_dataset(options.data, side=known.side, seed=known.seed, skip_bad=skip_bad)
    source = _Source(absolute(options.data), known.side, known.seed, skip_bad)
    same = dataset.fingerprint == known.fingerprint
    return dataset, own if same else measure(dataset.train), source


def _fitted(architecture: Architecture, dataset: Dataset) -> Architecture:
    """The same network for the channels and classes of these images."""
    return architecture.model_copy(
        update={"channels": dataset.channels, "classes": len(dataset.classes)}
    )


def _folder(options: TrainOptions, study: Study | None, settings: TrainingSettings) -> Path:
    """`--out`, or a folder in the study that only this training has."""
    if options.out is not None:
        _refuse_file(options.out)
        return options.out
    if study is None:
        raise UsageError(
            f"there is no place for the training of '{options.network}'",
            where="--out",
            why="an architecture has no study's folder",
            fix="--out trained/",
        )
    return study.folder / "training" / f"{settings.architecture.key}-{settings.digest}"


def _refuse_file(out: Path) -> None:
    taken = next((place for place in (out, *out.parents) if place.is_file()), None)
    if taken:
        raise UsageError(
            "this is a file",
            where=str(taken),
            why="a training is a folder",
            fix=f"--out {shlex.quote(f'{taken}-2')}",
        )
