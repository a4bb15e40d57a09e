"""The command line: one verb, one call. Heavy imports stay inside the verbs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.errors import NasfuseError, SearchError, SetupError

if TYPE_CHECKING:
    from nasfuse.api import Outcome

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"nasfuse {version('nasfuse')}")
        raise typer.Exit


@app.callback()
def nasfuse(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it and end."),
    ] = False,
) -> None:
    """Find the best small network for your images and compute budget, and the fusions it needs."""
    del version  # its callback has printed it


Studies = Annotated[
    Path, typer.Option("--studies", envvar="NASFUSE_STUDIES", help="Folder of all studies.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")]
StudyName = Annotated[str | None, typer.Argument(help="A study; the newest if left out.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Stop after this many different networks.")]
TimeLimit = Annotated[
    str | None, typer.Option(help="Stop after this time, such as 90s, 30m or 2h.  [default: 7m]")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Trials at once.  [default: one a core, or four a GPU]")
]
GpusPerTrial = Annotated[
    float | None, typer.Option(min=0.0, help="Share of a GPU for each.  [default: 0.25]")
]
RayAddress = Annotated[str | None, typer.Option(help="Join this Ray cluster.")]
STUDIES = Path("studies")
MAX_SEED = 2**31 - 1


@app.command(epilog="Example: nasfuse search --budget 400MFLOPs --data photos/ --time-limit 1h")
def search(
    budget: Annotated[
        str, typer.Option(help="Upper limit for one image: 400MFLOPs, 400MMACs, 0.4G: the same.")
    ],
    data: Annotated[
        str, typer.Option(help="A folder of images, sample or fashion-mnist.")
    ] = "sample",
    space: Annotated[str, typer.Option(help="A search space by name, or a YAML file.")] = "default",
    trials: Trials = None,
    time_limit: TimeLimit = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of a full training.  [default: 1]")
    ] = None,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = None,
    name: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of proposals, splits and training.")
    ] = 0,
    sampler: Annotated[
        str, typer.Option(help="guided, evolution, tpe, nsga2 or random.")
    ] = "guided",
    objective: Annotated[
        str, typer.Option(help="What the front weighs against accuracy: macs, params or latency.")
    ] = "macs",
    max_params: Annotated[str | None, typer.Option(help="Upper limit, such as 500K or 5M.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file with how to train.")] = None,
    ray_address: RayAddress = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server or store.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for networks within a budget and print their Pareto front."""
    from dataclasses import asdict

    from nasfuse.api import SearchOptions, foresee, plan_search, start
    from nasfuse.screens import (
        make_console,
        print_forecast,
        print_json,
        print_outcome,
        print_plan,
        say,
    )
    from nasfuse.terminal import parse_seconds, watching

    options = SearchOptions(
        budget=budget,
        data=data,
        space=space,
        name=name,
        trials=trials,
        seconds=parse_seconds(time_limit),
        workers=workers,
        gpus_per_trial=gpus_per_trial,
        sampler=sampler,
        seed=seed,
        objective=objective,
        max_params=max_params,
        epochs=epochs,
        recipe=recipe,
        ray_address=ray_address,
        tracking_uri=tracking_uri,
        studies=studies,
    )
    console = make_console(as_json)
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


@app.command(epilog="Example: nasfuse resume --time-limit 10m")
def resume(
    study: StudyName = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many networks in all.")
    ] = None,
    time_limit: TimeLimit = None,
    workers: Workers = None,
    gpus_per_trial: GpusPerTrial = None,
    ray_address: RayAddress = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go on with a search that was stopped or killed; nothing finished is trained again."""
    from nasfuse.api import continuation
    from nasfuse.api import resume as go_on
    from nasfuse.screens import make_console, print_outcome
    from nasfuse.searching.schedule import Limits
    from nasfuse.searching.study import find_study
    from nasfuse.terminal import parse_seconds, watching

    found = find_study(studies, study)
    limits, resources = continuation(
        found.settings,
        limits=Limits(trials, parse_seconds(time_limit)),
        workers=workers,
        gpus_per_trial=gpus_per_trial,
        ray_address=ray_address,
    )
    console = make_console(as_json)
    with watching(console, quiet=quiet) as listen:
        outcome = go_on(found, limits, resources, listen=listen)
    print_outcome(console, outcome, as_json=as_json)
    _exit_as_it_ended(outcome)


@app.command(epilog="Example: nasfuse front --json")
def front(study: StudyName = None, studies: Studies = STUDIES, as_json: Json = False) -> None:
    """Print the Pareto front of a study."""
    from nasfuse.results import result_front
    from nasfuse.screens import front_document, make_console, print_json, warn_of_short
    from nasfuse.searching.study import find_study
    from nasfuse.terminal import front_table

    found = find_study(studies, study)
    results = result_front(found.results)
    if as_json:
        print_json(front_document(found, results))
    else:
        console = make_console(False)
        warn_of_short(console, found, results)
        console.print(front_table(results))


@app.command(epilog="Example: nasfuse show best")
def show(
    trial: Annotated[str, typer.Argument(help="best, a trial's number, or its key.")] = "best",
    study: Annotated[str | None, typer.Option(help="The study.  [default: the newest]")] = None,
    studies: Studies = STUDIES,
) -> None:
    """Print everything about one trained network as JSON."""
    from nasfuse.api import choose
    from nasfuse.screens import print_json
    from nasfuse.searching.study import find_study

    result = choose(find_study(studies, study), trial)
    print_json(result.model_dump(mode="json", exclude_none=True))


@app.command(epilog="Example: nasfuse export best --out net/")
def export(
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    trial: Annotated[str, typer.Argument(help="best, a trial's number, or its key.")] = "best",
    study: Annotated[str | None, typer.Option(help="The study.  [default: the newest]")] = None,
    studies: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Write a network as a folder that needs torch only, checked in a fresh process."""
    from nasfuse.api import export as write
    from nasfuse.costs import show_macs
    from nasfuse.screens import make_console, print_json, say
    from nasfuse.searching.study import find_study

    found = find_study(studies, study)
    result, check = write(found, trial, out=out)
    files = sorted(path.name for path in out.iterdir())
    difference = max(check.differences.values())
    if as_json:
        document = {"key": result.key, "out": str(out), "files": files, "difference": difference}
        print_json({"schema_version": 1, **document})
        return
    console = make_console(False)
    say(
        console,
        f"trial {result.number} of {found.settings.name}: validation accuracy "
        f"{result.point.accuracy:.4f}, {show_macs(check.macs)} MACs, {check.params:,} parameters",
    )
    rung = found.settings.recipe.rungs[result.rung]
    epochs = f"{rung.epochs} epoch{'s' * (rung.epochs > 1)}"
    say(console, f"weights  of the search: {epochs} on {rung.share:.0%} of the training images")
    say(console, f"wrote    {out}: {', '.join(files)}")
    say(console, f"checked  in a fresh process: largest difference {difference:g}")
    say(console, f"use it   cd {shlex.quote(str(out))} && python -c 'import model; model.load()'")


@app.command(epilog="Example: nasfuse cost resnet50 --by-layer")
def cost(
    architecture: Annotated[
        str, typer.Argument(help="A published network, or an architecture as JSON or YAML.")
    ],
    by_layer: Annotated[bool, typer.Option("--by-layer", help="One line a layer.")] = False,
    as_json: Json = False,
) -> None:
    """Print what an architecture costs, by our count and by thop's."""
    from nasfuse.network import cost as cost_of
    from nasfuse.network import thop_macs
    from nasfuse.plan import plan
    from nasfuse.references import load_architecture
    from nasfuse.screens import make_console, print_json, print_layers, say

    document = load_architecture(architecture)
    price, thop = cost_of(document), thop_macs(document)
    layers = list(plan(document)) if by_layer else []
    if as_json:
        counts = {"macs": price.macs, "params": price.params, "thop": thop}
        rows = [
            {"name": x.name, "shape": x.shape, "macs": x.cost.macs, "params": x.cost.params}
            for x in layers
        ]
        listing = {"layers": rows} if by_layer else {}
        print_json({"schema_version": 1, "key": document.key, **counts, **listing})
        return
    console = make_console(False)
    if by_layer:
        print_layers(console, layers)
    say(
        console,
        f"{price.macs:,} MACs, {price.params:,} parameters for images of {document.resolution} "
        f"pixels; thop counts {thop:,} MACs (with batch norm and pooling)",
    )


@app.command(epilog="Example: nasfuse spaces default")
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space to print.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a complete architecture of the space.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the search spaces and the published networks, or print a space."""
    from nasfuse.references import reference_names
    from nasfuse.screens import print_json
    from nasfuse.space import find_space, load_space, space_names

    if example:
        print_json(load_space(name or "default").sample(0).architecture.document())
    elif name:
        sys.stdout.write(find_space(name).read_text(encoding="utf-8"))
    elif as_json:
        sizes = {known: load_space(known).size for known in space_names()}
        print_json({"schema_version": 1, "spaces": sizes, "architectures": reference_names()})
    else:
        for known in space_names():
            space = load_space(known)
            print(f"{known:<12} about {space.size:.0e} networks; {', '.join(space.fusions)}")
        print(f"published networks, for nasfuse cost: {', '.join(reference_names())}")


@app.command(epilog="Example: nasfuse ui")
def ui(
    study: StudyName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0,
    studies: Studies = STUDIES,
) -> None:
    """Serve MLflow on this machine and print the address of the front."""
    from nasfuse.api import tracking_uri
    from nasfuse.searching.study import find_study
    from nasfuse.serving import serve
    from nasfuse.tracking import TrackingError, front_address
    from nasfuse.view import artifact_folder

    found = find_study(studies, study)
    uri, name, identity = tracking_uri(found), found.settings.name, found.settings.id
    artifacts = artifact_folder(found, uri)
    if artifacts is None:
        try:
            print(f"the front of {name}:\n  {front_address(uri.rstrip('/'), uri, name, identity)}")
        except TrackingError as error:
            raise SetupError(
                "the tracking server cannot be used", where=uri, why=str(error)
            ) from None
        return
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # so that the server is ended too
    with serve(uri, artifacts, port=port) as server:
        print(f"the front of {name}:\n  {front_address(server.address, uri, name, identity)}")
        print(f"all studies:\n  {server.address}\nCtrl-C ends the server.", flush=True)
        server.process.wait()


def _exit_as_it_ended(outcome: Outcome) -> None:
    from nasfuse.screens import next_commands

    if outcome.progress.stopping:
        raise typer.Exit(143 if outcome.progress.stopping == "SIGTERM" else 130)
    if not outcome.front:
        raise SearchError(
            "no network finished its training",
            where=str(outcome.study.folder / "results.jsonl"),
            why="the time was too short, or every trial failed",
            fix=f"{next_commands(outcome.study)['resume']} --time-limit 10m",
        )


def main() -> None:
    """Run the command line; a user's mistake ends in four lines and its own exit code."""
    try:
        app()
    except NasfuseError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # the second Ctrl-C of a search, or one where nothing is at stake
        print("stopped at once; nasfuse resume goes on with the newest study", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
