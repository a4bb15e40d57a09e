"""front, show and ui: what a study found."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from nasfuse.cli.options import (
    STUDIES,
    Json,
    Quiet,
    Studies,
    StudyName,
    StudyOption,
    TrialWords,
    study_and_trial,
)
from nasfuse.errors import SetupError, UsageError, visible


def front(
    study: StudyName = None,
    studies: Studies = STUDIES,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV; numbers are not rounded.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study."""
    from nasfuse.results import result_front
    from nasfuse.screens import front_document, make_console, print_json, warn_of_short
    from nasfuse.searching.study import find_study
    from nasfuse.summary import front_rows
    from nasfuse.tables import csv_table
    from nasfuse.terminal import front_table

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", where="nasfuse front", fix="--csv")
    found = find_study(studies, study)
    results = found.results
    best = result_front(results)
    if as_json:
        print_json(front_document(found, best))
    elif as_csv:
        sys.stdout.write(visible(csv_table(front_rows(results))))
    else:
        console = make_console(False)
        if not quiet:
            warn_of_short(console, found, best)
        console.print(front_table(best))


def show(
    trial: TrialWords = None,
    study: StudyOption = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print everything about one trained network; with -q the folder of its files."""
    from nasfuse.choosing import choose
    from nasfuse.commands import elsewhere_option
    from nasfuse.screens import make_console, print_json, print_trial

    verb = f"nasfuse show{elsewhere_option(studies)}"
    found, which = study_and_trial(verb, studies, trial, study)
    result = choose(found, which)
    if as_json:
        print_json({"schema_version": 1, **result.model_dump(mode="json", exclude_none=True)})
    elif quiet:
        print(found.trial(result.key))
    else:
        print_trial(make_console(False), found, result)


def ui(
    study: StudyName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this lets others in.")
    ] = "127.0.0.1",
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Serve MLflow on this machine and print where the front is; with -q only its chart."""
    from nasfuse.api import tracking_uri
    from nasfuse.screens import print_addresses
    from nasfuse.searching.study import find_study
    from nasfuse.serving import open_to, serve
    from nasfuse.tracking import study_addresses
    from nasfuse.view import artifact_folder

    found = find_study(studies, study)
    uri, settings = tracking_uri(found), found.settings
    artifacts = artifact_folder(found, uri)
    if artifacts is None:
        with _usable(uri):
            addresses = study_addresses(uri.rstrip("/"), uri, settings.name, settings.id)
        print_addresses(settings.name, addresses, quiet=quiet, as_json=as_json)
        return
    if warning := open_to(host):
        print(warning, file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # so that the server is ended too
    with serve(uri, artifacts, host=host, port=port) as server:
        with _usable(uri):
            addresses = study_addresses(server.address, uri, settings.name, settings.id)
        print_addresses(settings.name, addresses, quiet=quiet, as_json=as_json)
        if not (as_json or quiet):
            print("Ctrl-C ends the server.", flush=True)
        try:
            code = server.process.wait()
        except KeyboardInterrupt:  # as it was told
            return
        if code:
            raise SetupError(
                "the server has ended",
                where=server.address,
                why=f"exit code {code}",
                fix="nasfuse ui",
            )


@contextmanager
def _usable(uri: str) -> Iterator[None]:
    """What the tracking server or store does not do is something that this machine lacks."""
    from nasfuse.tracking import TrackingError

    try:
        yield
    except TrackingError as error:
        raise SetupError("the tracking server cannot be used", where=uri, why=str(error)) from None
