"""export: a network taken out of a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.cli.options import (
    STUDIES,
    Json,
    NetworkWords,
    Quiet,
    Studies,
    StudyOption,
    TrialOption,
    network_and_trial,
)

if TYPE_CHECKING:
    from nasfuse.api import Exported


def export(
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    network: NetworkWords = None,
    trial: TrialOption = None,
    study: StudyOption = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of python, onnx, pt2, hf, mlflow, openvino, executorch; python always.",
        ),
    ] = "python,onnx",
    weights: Annotated[
        str, typer.Option(help="best-available, trained or search (short runs too).")
    ] = "best-available",
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure it and put it into the model card.")
    ] = False,
    register: Annotated[
        str | None, typer.Option(help="Register it in MLflow under this name.")
    ] = None,
    studies: Studies = STUDIES,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a network as a folder that needs nothing of nasfuse, checked in a fresh process."""
    from nasfuse.api import ExportOptions
    from nasfuse.api import export as write
    from nasfuse.commands import elsewhere_option
    from nasfuse.screens import make_console, print_json
    from nasfuse.terminal import decoding

    verb = f"nasfuse export{elsewhere_option(studies)} --out {shlex.quote(str(out))}"
    named, which = network_and_trial(verb, network, trial)
    options = ExportOptions(
        out=out,
        network=named,
        trial=which,
        study=study,
        formats=formats,
        weights=weights,  # type: ignore[arg-type]  # checked where it is used
        latency=latency,
        register=register,
        studies=studies,
    )
    with decoding(make_console(as_json), quiet=quiet):
        exported = write(options)
    files = sorted(path.name for path in out.iterdir())
    if as_json:
        document = {"key": exported.origin.architecture.key, "out": str(out), "files": files}
        difference = max(exported.check.differences["python"].values())
        checks = {
            "difference": difference,
            "check": exported.check.document(),
            "registered": exported.address,
        }
        print_json({"schema_version": 1, **document, "weights": exported.origin.kind, **checks})
        return
    if quiet:
        print(out)
        return
    _print(exported, out, files)


def _print(exported: Exported, out: Path, files: list[str]) -> None:
    from nasfuse.costs import show_macs
    from nasfuse.screens import make_console, say

    console, origin, check = make_console(False), exported.origin, exported.check
    say(console, f"{show_macs(check.macs)} MACs, {check.params:,} parameters")
    say(console, origin.story)
    for line in origin.quality:
        say(console, line)
    say(console, f"wrote    {out}: {', '.join(files)}")
    largest = ", ".join(f"{name} {max(d.values()):.2g}" for name, d in check.differences.items())
    say(console, f"checked  in a fresh process, largest difference: {largest}")
    if check.validation is None:
        say(console, "         accuracy not checked: the validation images are not at hand")
    else:
        shares = ", ".join(f"{name} {s:.2%}" for name, s in check.validation.shares.items())
        say(console, f"         on {check.validation.images:,} validation images: {shares}")
    for name, times in check.latency.items():
        say(console, f"latency  {name} {times['median']:.2f} ms on one thread")
    if exported.address:
        say(console, f"MLflow   {exported.address}")
    say(console, f"use it   cd {shlex.quote(str(out))} && python model.py photo.jpg")
