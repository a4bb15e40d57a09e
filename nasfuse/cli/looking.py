"""front, show and ui: what a study found."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from nasfuse.cli.options import STUDIES, Json, Studies, StudyName
from nasfuse.errors import SetupError


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


def show(
    trial: Annotated[str, typer.Argument(help="best, a trial's number, or its key.")] = "best",
    study: Annotated[str | None, typer.Option(help="The study.  [default: the newest]")] = None,
    studies: Studies = STUDIES,
) -> None:
    """Print everything about one trained network as JSON."""
    from nasfuse.choosing import choose
    from nasfuse.screens import print_json
    from nasfuse.searching.study import find_study

    result = choose(find_study(studies, study), trial)
    print_json(result.model_dump(mode="json", exclude_none=True))


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
