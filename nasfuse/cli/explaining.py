"""explain: which fusion stands where, what it does to accuracy, and what swapping it does."""

from __future__ import annotations

from typing import Annotated

import typer

from nasfuse.cli.options import (
    STUDIES,
    GpusPerTrial,
    Json,
    Quiet,
    RayAddress,
    Studies,
    StudyName,
    Workers,
)


def explain(
    study: StudyName = None,
    trial: Annotated[
        str, typer.Option(help="Whose fusions are swapped: best, a number or a key.")
    ] = "best",
    swaps: Annotated[
        int | None, typer.Option(min=1, help="Train this many swaps.  [default: none]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each network.")] = 5,
    time_limit: Annotated[
        str | None, typer.Option(help="Begin no training that would end much later, such as 30m.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the same images are now.")] = None,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = None,
    ray_address: RayAddress = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print what fusions do in a study; with --swaps, swap those of its best network and train."""
    from nasfuse.api import Swaps, swap
    from nasfuse.api import explain as explain_study
    from nasfuse.fusion_screens import print_explanation, swap_lines
    from nasfuse.fusion_words import document
    from nasfuse.planning import continuation
    from nasfuse.screens import make_console, print_json, print_unseen
    from nasfuse.searching.limits import Limits
    from nasfuse.searching.study import find_study
    from nasfuse.terminal import decoding, parse_seconds

    found, console = find_study(studies, study), make_console(as_json)
    seconds, stopped, problem = parse_seconds(time_limit), None, None
    if swaps:
        _, resources = continuation(
            found.settings,
            limits=Limits(None, seconds),
            workers=workers,
            gpus_per_trial=gpus_per_trial,
            ray_address=ray_address,
        )
        listen = None if quiet else swap_lines(console)
        limits, asked = Limits(None, seconds), Swaps(swaps, trial, seeds)
        with decoding(console, quiet=quiet):
            progress, problem = swap(found, asked, limits, resources, data=data, listen=listen)
        stopped = progress.stopping
    explanation = explain_study(found)
    if as_json:
        fusions = document(explanation.found, explanation.swapped)
        print_json({"schema_version": 1, "study": found.settings.name, **fusions})
    else:
        print_explanation(console, found, explanation)
    if problem:
        print_unseen(console, found, problem)
    if stopped:
        raise typer.Exit(143 if stopped == "SIGTERM" else 130)
