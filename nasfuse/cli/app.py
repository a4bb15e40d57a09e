"""The verbs, and how a command ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nasfuse.cli.checking import check, names
from nasfuse.cli.describing import cost, spaces
from nasfuse.cli.explaining import explain
from nasfuse.cli.exporting import export
from nasfuse.cli.looking import front, show, ui
from nasfuse.cli.searching import resume, search
from nasfuse.cli.training import train
from nasfuse.errors import NasfuseError

# in the order of the help; the name of the function is the verb
VERBS: dict[Callable[..., Any], str] = {
    search: "nasfuse search --budget 400MFLOPs --data photos/ --time-limit 1h",
    resume: "nasfuse resume --time-limit 10m",
    front: "nasfuse front --json",
    show: "nasfuse show best",
    explain: "nasfuse explain --swaps 8 --time-limit 30m",
    train: "nasfuse train best --epochs 30",
    export: "nasfuse export best --out net/",
    cost: "nasfuse cost resnet50 --by-layer",
    spaces: "nasfuse spaces default",
    ui: "nasfuse ui",
}
# verbs that belong together
GROUPS: dict[str, tuple[str, dict[Callable[..., Any], str]]] = {
    "data": (
        "Look at images before a search does.",
        {check: "nasfuse data check photos/", names: "nasfuse data names"},
    ),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"nasfuse {version('nasfuse')}")
        raise typer.Exit


def nasfuse(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it and end."),
    ] = False,
) -> None:
    """Find the best small network for your images and compute budget, and the fusions it needs."""
    del version  # its callback has printed it


def _app() -> typer.Typer:
    app = _with_verbs(VERBS)
    app.callback()(nasfuse)
    for name, (text, verbs) in GROUPS.items():
        group = _with_verbs(verbs)
        app.add_typer(group, name=name, help=text)
    return app


def _with_verbs(verbs: dict[Callable[..., Any], str]) -> typer.Typer:
    app = typer.Typer(
        add_completion=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for verb, example in verbs.items():
        app.command(epilog=f"Example: {example}")(verb)
    return app


app = _app()


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
