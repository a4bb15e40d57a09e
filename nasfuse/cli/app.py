"""The verbs, and what is asked of the program as a whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nasfuse.cli.checking import check, names
from nasfuse.cli.describing import cost, spaces
from nasfuse.cli.diagnosing import doctor
from nasfuse.cli.ending import done, guarded, leave, usage_error
from nasfuse.cli.explaining import explain
from nasfuse.cli.exporting import export
from nasfuse.cli.following import status, stop, sync
from nasfuse.cli.looking import front, show, ui
from nasfuse.cli.searching import resume, search
from nasfuse.cli.training import train
from nasfuse.pickles import NO_PICKLES

# in the order of the help; the name of the function is the verb
VERBS: dict[Callable[..., Any], str] = {
    search: "nasfuse search --budget 400MFLOPs --data photos/ --time-limit 1h",
    resume: "nasfuse resume --time-limit 10m",
    status: "nasfuse status",
    stop: "nasfuse stop",
    front: "nasfuse front --csv > front.csv",
    show: "nasfuse show photos-1 best",
    explain: "nasfuse explain --swaps 8 --time-limit 30m",
    train: "nasfuse train best --epochs 30",
    export: "nasfuse export best --out net/",
    cost: "nasfuse cost resnet50 --by-layer",
    spaces: "nasfuse spaces default",
    ui: "nasfuse ui",
    sync: "nasfuse sync photos-1",
    doctor: "nasfuse doctor",
}
# verbs that belong together
GROUPS: dict[str, tuple[str, dict[Callable[..., Any], str]]] = {
    "data": (
        "Look at images before a search does.",
        {check: "nasfuse data check photos/", names: "nasfuse data names"},
    ),
}
# what the parser raises; typer shows it in a form of its own, and does not name the class
ParserError: type[Any] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"nasfuse {version('nasfuse')}")
        raise typer.Exit


def nasfuse(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it and end."),
    ] = False,
) -> None:
    """Find the best small network for your images and compute budget, and the fusions it needs."""
    del version  # its callback has printed it
    _show_help(ctx)


def _show_help(ctx: typer.Context) -> None:
    """What is said where no verb is."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def _app() -> typer.Typer:
    app = _with_verbs(VERBS)
    app.callback()(nasfuse)
    for name, (text, verbs) in GROUPS.items():
        group = _with_verbs(verbs)
        group.callback()(_show_help)
        app.add_typer(group, name=name, help=text)
    return app


def _with_verbs(verbs: dict[Callable[..., Any], str]) -> typer.Typer:
    app = typer.Typer(
        add_completion=True,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for verb, example in verbs.items():
        app.command(epilog=f"Example: {example}")(guarded(verb))
    return app


app = _app()


def main() -> None:
    """Run the command line; a user's mistake ends in four lines and its own exit code."""
    os.environ.update(NO_PICKLES)  # libraries read it when they load something
    try:
        code = app(prog_name="nasfuse", standalone_mode=False)
    except ParserError as error:
        mistake = usage_error(error, sys.argv[1:], typer.main.get_command(app))
        print(mistake, file=sys.stderr)
        code = mistake.exit_code
    except SystemExit as end:  # typer's answer to a reader that leaves during its help
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        code = 0
    done()
    sys.exit(code or 0)


def program() -> None:
    """The command line as a process of its own, which does not tidy up at its end."""
    try:
        main()
    except SystemExit as end:
        leave(end)
