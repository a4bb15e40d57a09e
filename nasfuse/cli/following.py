"""status, stop and sync: a search that runs elsewhere, or ran."""

from __future__ import annotations

from nasfuse.cli.options import STUDIES, Json, Quiet, Studies, StudyName
from nasfuse.errors import hide_passwords


def status(
    study: StudyName = None, studies: Studies = STUDIES, quiet: Quiet = False, as_json: Json = False
) -> None:
    """Say where a study stands: what runs, what was tried, and the best so far."""
    from nasfuse.screens import make_console, print_json, tell
    from nasfuse.searching.study import find_study
    from nasfuse.standing import stand, stand_document, stand_lines

    found = stand(find_study(studies, study))
    if as_json:
        print_json(stand_document(found))
        return
    console = make_console(False)
    for line in stand_lines(found)[: 1 if quiet else None]:
        tell(console, line, indent=9)


def stop(
    study: StudyName = None, studies: Studies = STUDIES, quiet: Quiet = False, as_json: Json = False
) -> None:
    """Ask a running search to end after its running steps; it can be resumed."""
    from nasfuse.commands import next_commands
    from nasfuse.screens import make_console, print_json, say
    from nasfuse.searching.study import find_study

    found = find_study(studies, study)
    process = found.searcher
    if process is not None:
        found.ask_to_stop()
    if as_json:
        name = found.settings.name
        print_json({"schema_version": 1, "study": name, "asked": process is not None})
        return
    if quiet:
        return
    console = make_console(False)
    if process is None:
        say(console, f"no search runs in {found.settings.name}; there is nothing to stop")
    else:
        say(console, f"asked process {process} to stop {found.settings.name} after running steps")
        say(console, f"go on with:  {next_commands(found)['resume']}")


def sync(
    study: StudyName = None, studies: Studies = STUDIES, quiet: Quiet = False, as_json: Json = False
) -> None:
    """Make MLflow show all of a study, after its server was down or a search was killed."""
    from nasfuse.api import sync as show
    from nasfuse.api import tracking_uri
    from nasfuse.screens import make_console, print_json, say
    from nasfuse.searching.study import find_study

    found = find_study(studies, study)
    runs = show(found)
    name, uri = found.settings.name, hide_passwords(tracking_uri(found))
    if as_json:
        print_json({"schema_version": 1, "study": name, "runs": runs, "tracking_uri": uri})
    elif not quiet:
        say(make_console(False), f"MLflow shows all {runs} runs of {name}: {uri}")
