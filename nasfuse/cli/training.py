"""train: one architecture, fully and with several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasfuse.cli.options import (
    MAX_SEED,
    STUDIES,
    Json,
    NetworkWords,
    Quiet,
    Studies,
    StudyOption,
    TrialOption,
    network_and_trial,
)


def train(
    network: NetworkWords = None,
    trial: TrialOption = None,
    study: StudyOption = None,
    data: Annotated[
        str | None, typer.Option(help="Other images than the study's; needed for an architecture.")
    ] = None,
    skip_bad: Annotated[
        int | None, typer.Option(min=0, help="Leave out up to this many unreadable images.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="[default: 20, or the search's]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings from scratch.")] = 3,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Of the first.  [default: the study's]")
    ] = None,
    all_data: Annotated[
        bool, typer.Option("--all-data", help="Train on the validation images too.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file with how to train.  [default: the study's]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.  [default: in the study's]")
    ] = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network fully, with several seeds; the test images are used once, at the end.

    `nasfuse train finalists` trains the best of a search one after the other.
    The same command goes on after Ctrl-C or a kill. `nasfuse export` then takes these weights.
    """
    from nasfuse.api import train as run
    from nasfuse.commands import elsewhere_option
    from nasfuse.screens import make_console, print_json
    from nasfuse.terminal import decoding
    from nasfuse.training_plan import FINALISTS, TrainOptions, each_finalist
    from nasfuse.training_screen import following, print_compared, print_trained

    verb = f"nasfuse train{elsewhere_option(studies)}"
    named, which = network_and_trial(verb, network, trial)
    options = TrainOptions(
        network=named,
        trial=which,
        study=study,
        data=data,
        skip_bad=skip_bad,
        epochs=epochs,
        seeds=seeds,
        seed=seed,
        all_data=all_data,
        recipe=recipe,
        out=out,
        studies=studies,
    )
    console = make_console(as_json)
    done = []
    for one in each_finalist(options):
        shown = following(console, quiet=quiet)
        with shown as (announce, listen), decoding(console, quiet=quiet):
            done.append(run(one, announce=announce, listen=listen))
        print_trained(console, done[-1])
    print_compared(console, done)
    if as_json:
        documents = [
            {**one.trained.model_dump(mode="json"), "folder": str(one.folder)} for one in done
        ]
        print_json(documents[0] if FINALISTS not in (named, which) else {"trainings": documents})
