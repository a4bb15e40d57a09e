"""search and resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.cli import completing
from nasfuse.cli.options import (
    MAX_SEED,
    STUDIES,
    GpusPerTrial,
    Json,
    Quiet,
    RayAddress,
    SkipBad,
    Studies,
    StudyName,
    TimeLimit,
    Trials,
    Workers,
)
from nasfuse.errors import SearchError

if TYPE_CHECKING:
    from nasfuse.api import Outcome


def search(
    budget: Annotated[
        str, typer.Option(help="Upper limit for one image: 400MFLOPs, 400MMACs, 0.4G: the same.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="A folder of images, a .npz file, module:function, or one of sample, "
            "fashion-mnist, cifar10, cifar100, digits."
        ),
    ] = "sample",
    skip_bad: SkipBad = 0,
    space: Annotated[
        str,
        typer.Option(
            help="A search space by name, or a YAML file.", autocompletion=completing.spaces
        ),
    ] = "default",
    trials: Trials = None,
    time_limit: TimeLimit = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Epochs of a full training.  [default: 1, more of under 10,000 images]"
        ),
    ] = None,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = None,
    name: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of proposals, splits and training.")
    ] = 0,
    sampler: Annotated[
        str,
        typer.Option(
            help="guided, evolution, tpe, nsga2 or random.", autocompletion=completing.samplers
        ),
    ] = "guided",
    objective: Annotated[
        str,
        typer.Option(
            help="What the front weighs against accuracy: macs, params or latency.",
            autocompletion=completing.objectives,
        ),
    ] = "macs",
    front_from: Annotated[
        str | None,
        typer.Option(
            help="Where the front begins; the budget itself for networks that use all of it."
            "  [default: 1/64 of the budget]"
        ),
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Upper limit, such as 500K or 5M.")] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="Upper limit for one image, measured by one thread, such as 20ms."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file with how to train.")] = None,
    ray_address: RayAddress = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server or store.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="NASFUSE_STORAGE",
            help="PostgreSQL for proposals.  [default: a file in the study's folder]",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for networks within a budget and print their Pareto front."""
    from dataclasses import asdict

    from nasfuse.costs import parse_budget
    from nasfuse.reach import refuse_at_once

    refuse_at_once(space, parse_budget(budget))  # before torch is loaded, which takes seconds

    from nasfuse.api import start
    from nasfuse.planning import SearchOptions, foresee, plan_search
    from nasfuse.screens import (
        make_console,
        print_forecast,
        print_json,
        print_outcome,
        print_plan,
        say,
    )
    from nasfuse.terminal import decoding, parse_seconds, watching

    options = SearchOptions(
        budget=budget,
        data=data,
        skip_bad=skip_bad,
        space=space,
        name=name,
        trials=trials,
        seconds=parse_seconds(time_limit),
        workers=workers,
        gpus_per_trial=gpus_per_trial,
        sampler=sampler,
        seed=seed,
        objective=objective,
        front_from=front_from,
        max_params=max_params,
        max_latency=max_latency,
        epochs=epochs,
        recipe=recipe,
        ray_address=ray_address,
        tracking_uri=tracking_uri,
        storage=storage,
        studies=studies,
    )
    console = make_console(as_json)
    with decoding(console, quiet=quiet):
        plan = plan_search(options)
    if not quiet:
        print_plan(console, plan)
    if dry_run:
        foreseen = foresee(plan)
        print_forecast(console, plan, foreseen)
        say(console, "nothing was written; leave out --dry-run to start")
        if as_json:
            settings = plan.settings.model_dump(mode="json")
            print_json({"schema_version": 1, "settings": settings, "forecast": asdict(foreseen)})
        return
    with watching(console, quiet=quiet) as listen:
        outcome = start(plan, listen=listen)
    print_outcome(console, outcome, as_json=as_json)
    _exit_as_it_ended(outcome)


def resume(
    study: StudyName = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many networks in all.")
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Stop after this time, such as 30m, counted anew.  [default: as last asked for]"
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the same images are now.")] = None,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = None,
    ray_address: RayAddress = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go on with a search that was stopped or killed; nothing finished is trained again."""
    from nasfuse.api import resume as go_on
    from nasfuse.planning import continuation
    from nasfuse.screens import make_console, print_outcome
    from nasfuse.searching.limits import Limits, last_limits
    from nasfuse.searching.study import find_study
    from nasfuse.terminal import decoding, parse_seconds, watching

    found = find_study(studies, study)
    limits, resources = continuation(
        found.settings,
        limits=Limits(trials, parse_seconds(time_limit)) or last_limits(found),
        workers=workers,
        gpus_per_trial=gpus_per_trial,
        ray_address=ray_address,
    )
    console = make_console(as_json)
    with watching(console, quiet=quiet) as listen, decoding(console, quiet=quiet):
        outcome = go_on(found, limits, resources, data=data, listen=listen)
    print_outcome(console, outcome, as_json=as_json)
    _exit_as_it_ended(outcome)


def _exit_as_it_ended(outcome: Outcome) -> None:
    from nasfuse.commands import next_commands

    if outcome.progress.stopping:
        raise typer.Exit(143 if outcome.progress.stopping == "SIGTERM" else 130)
    if not outcome.front:
        raise SearchError(
            "no network finished its training",
            where=str(outcome.study.folder / "results.jsonl"),
            why="the time was too short, or every trial failed",
            fix=f"{next_commands(outcome.study)['resume']} --time-limit 10m",
        )
