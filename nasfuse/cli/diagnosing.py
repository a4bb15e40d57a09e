"""doctor: what this machine has, and what it lacks."""

from __future__ import annotations

import typer

from nasfuse.cli.options import STUDIES, Json, Quiet, Studies


def doctor(studies: Studies = STUDIES, quiet: Quiet = False, as_json: Json = False) -> None:
    """Say what this machine has and lacks: versions, hardware, disk, data, open addresses.

    With -q only what is to be mended.
    """
    from nasfuse.machine import examine
    from nasfuse.screens import make_console, print_json, say

    findings = examine(studies)
    sound = not any(finding.broken for finding in findings)
    if as_json:
        rows = [finding._asdict() for finding in findings]
        print_json({"schema_version": 1, "sound": sound, "findings": rows})
    else:
        console = make_console(False)
        for finding in (one for one in findings if one.fix or not quiet):
            say(console, f"{finding.subject:<9} {finding.text}")
            if finding.fix:
                say(console, f"{'':<9}   fix: {finding.fix}")
        if not (sound and quiet):
            say(
                console, "all is well" if sound else "a search cannot run here until that is mended"
            )
    if not sound:
        raise typer.Exit(5)
