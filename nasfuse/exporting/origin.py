"""Where exported weights come from: all that the files say of them, without paths or times."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal, get_args

from nasfuse.architecture import Architecture
from nasfuse.commands import elsewhere_option
from nasfuse.data.dataset import Split
from nasfuse.data.downloads import no_downloads
from nasfuse.data.load import load_dataset, runs_code
from nasfuse.errors import DataError, SetupError, UsageError
from nasfuse.kept_weights import require_weights
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.study import Study
from nasfuse.trained import Trained, find_trained

Weights = Literal["best-available", "trained", "search"]
REMOVE = "put the file back, or remove the folder and give the same `nasfuse train` again"
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


@dataclass(frozen=True)
class Origin:
    """A network, its weights and their story.

    `kind` is how they were trained: fully, as a full run of a search, or in one of its short runs.
    `story` says so in a sentence, `quality` what the network knows, a line each. `accuracy` is the
    recorded one on all validation images, where it was measured in float32. `side` is that of
    the images which the preprocessing starts from, `source` what `load_dataset` is told for them.
    """

    architecture: Architecture
    weights: Path
    kind: Literal["trained", "search", "short"]
    story: str
    quality: tuple[str, ...]
    accuracy: float | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    source: tuple[str, int, int, int]
    data: str
    fingerprint: str
    recipe: Recipe
    epochs: int
    seed: int
    versions: dict[str, str]


def origin_of_trial(study: Study, result: Result, weights: Weights) -> Origin:
    """The best weights of a trial that `weights` admits: of a full training, else of the search.

    Raises:
        UsageError: there are none; those of short runs are to be asked for.
        StorageError: their file is gone, or was changed.
    """
    if weights not in WEIGHTS:
        raise UsageError(
            f"there are no weights '{weights}'",
            where="--weights",
            why=f"the choices are {', '.join(WEIGHTS)}",
            fix="--weights best-available",
        )
    if weights != "search":
        found = find_trained(study.folder, result.key, study.settings.fingerprint)
        if found is not None:
            return origin_of_training(*found)
    full = result.rung == study.settings.recipe.top
    if weights == "trained" or (weights == "best-available" and not full):
        raise _not_trained(study, result, full=full)
    return _of_search(study, result)


def _not_trained(study: Study, result: Result, *, full: bool) -> UsageError:
    rung = study.settings.recipe.rungs[result.rung]
    runs = f"{rung.passes:g} epoch(s) of a search" + ("" if full else ", a short run to rank it")
    return UsageError(
        f"trial {result.number} has not been trained fully",
        where=str(study.folder),
        why=f"its weights have seen {runs}",
        fix=f"{_training(study, result)}   or --weights search",
    )


def _training(study: Study, result: Result) -> str:
    """The command that trains it fully."""
    name, elsewhere = shlex.quote(study.folder.name), elsewhere_option(study.folder.parent)
    return f"nasfuse train {name} --trial {result.number}{elsewhere}"


def _of_search(study: Study, result: Result) -> Origin:
    settings, rung = study.settings, study.settings.recipe.rungs[result.rung]
    top = result.rung == settings.recipe.top
    seen = (
        f"{rung.epochs} epoch{'s' * (rung.epochs > 1)} on {rung.share:.0%} of the training images"
    )
    early = "" if rung.stop == 1 else f", stopped after {rung.stop:.0%} of it"
    what = "a full run" if top else "a short run, made to rank networks and not to be used"
    story = f"Weights of the search ({what}): search recipe, {seen}{early}."
    quality = [
        f"Validation accuracy {result.point.accuracy:.2%} (1 seed, {settings.validation:,} "
        "images), by which the search may have chosen this run."
    ]
    repeats = [
        r.point.accuracy
        for r in study.results
        if r.key == result.key
        and r.rung == settings.recipe.top
        and r.repeat
        and r.status != "failed"
    ]
    if len(repeats) > 1:
        quality.append(
            f"Trained again by the finals: validation accuracy {fmean(repeats):.2%} +- "
            f"{100 * stdev(repeats):.2f} ({len(repeats)} other seeds, which did not choose it)."
        )
    quality.append("Test accuracy: never measured. `nasfuse train` does, with several seeds.")
    path = study.trial(result.key) / f"{result.step.stem}.safetensors"
    recipe = settings.recipe.at(result.rung)
    return Origin(
        architecture=result.architecture,
        weights=require_weights(
            path, result.weights_sha256, fix=f"put the file back, or: {_training(study, result)}"
        ),
        kind="search" if top else "short",
        story=story,
        quality=tuple(quality),
        accuracy=None,  # the search judges in bfloat16 where the machine has it
        classes=settings.classes,
        mean=settings.mean,
        std=settings.std,
        side=settings.stored or settings.side,
        source=(settings.data, settings.side, settings.seed, settings.skip_bad),
        data=Path(settings.data).name,
        fingerprint=settings.fingerprint,
        recipe=recipe.halved() if result.retry else recipe,
        epochs=rung.epochs,
        seed=result.seed,
        versions=result.versions,
    )


def origin_of_training(folder: Path, trained: Trained) -> Origin:
    """The chosen run of a full training."""
    settings, run = trained.settings, trained.runs[trained.chosen]
    count = len(trained.runs)
    images = "training and validation images" if settings.all_data else "training images"
    chosen = "the first" if trained.validation is None else "the most accurate on validation images"
    epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
    story = f"Weights of a full training, {epochs} on the {images}" + (
        f"; of {count} seeds {chosen}." if count > 1 else ", one seed."
    )
    quality = []
    for name, scores in (("Test", trained.test), ("Validation", trained.validation)):
        if scores is not None:
            own = f"; these weights {scores.accuracies[trained.chosen]:.2%}" if count > 1 else ""
            quality.append(f"{name} accuracy {scores.text}, {scores.images:,} images{own}.")
    if trained.test is None:
        quality.append("Test accuracy: the data have no test images.")
    if trained.validation is None:
        quality.append("Validation accuracy: none, as the network was trained on these images.")
    accuracy = trained.validation.accuracies[trained.chosen] if trained.validation else None
    return Origin(
        architecture=settings.architecture,
        weights=require_weights(folder / run.weights, run.sha256, fix=REMOVE),
        kind="trained",
        story=story,
        quality=tuple(quality),
        accuracy=accuracy,
        classes=settings.classes,
        mean=settings.mean,
        std=settings.std,
        side=settings.stored,
        source=(settings.data, settings.side, settings.split_seed, settings.skip_bad),
        data=Path(settings.data).name,
        fingerprint=settings.fingerprint,
        recipe=settings.recipe.halved() if run.retry else settings.recipe,
        epochs=settings.epochs,
        seed=settings.seed,
        versions=trained.versions,
    )


def with_images(origin: Origin) -> tuple[Origin, Split | None]:
    """The validation images, where the data are at hand and still the same; and the side they have.

    An export does not depend on them: the computer that exports may be another one. Images from a
    function count as not at hand, for code runs only where its name is typed.
    """
    data, side, seed, skip_bad = origin.source
    if runs_code(data):
        return origin, None
    try:
        with no_downloads():
            dataset = load_dataset(data, side=side, seed=seed, skip_bad=skip_bad)
    except (DataError, SetupError):  # SetupError: what reads them is not installed here
        return origin, None
    if dataset.fingerprint != origin.fingerprint:
        return origin, None
    return replace(origin, side=dataset.train.images.shape[-1]), dataset.validation
