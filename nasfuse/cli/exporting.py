"""export: a network taken out of a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from nasfuse.cli.options import (
    STUDIES,
    Json,
    Studies,
    StudyOption,
    TrialWords,
    study_and_trial,
)


def export(
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    trial: TrialWords = None,
    study: StudyOption = None,
    studies: Studies = STUDIES,
    as_json: Json = False,
) -> None:
    """Write a network as a folder that needs torch only, checked in a fresh process."""
    from nasfuse.api import export as write
    from nasfuse.costs import show_macs
    from nasfuse.screens import make_console, print_json, say

    found, which = study_and_trial(studies, trial, study)
    result, check = write(found, which, out=out)
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
