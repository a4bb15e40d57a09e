"""data names and data check: what images there are, before a search takes hours with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.cli.options import MAX_SEED, Json, Quiet, SkipBad
from nasfuse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nasfuse.data.checking import Survey

ROWS = 20  # classes, or unreadable files, that the terminal shows


def names(quiet: Quiet = False, as_json: Json = False) -> None:
    """List the data sets that have a name."""
    from nasfuse.data.load import DATASETS
    from nasfuse.screens import print_json

    if as_json:
        print_json({"schema_version": 1, "data": DATASETS})
    else:
        for name, description in DATASETS.items():
            print(name if quiet else f"{name:<14} {description}")


def check(
    data: Annotated[
        str, typer.Argument(help="As for search: a folder, a .npz file, a name, module:function.")
    ] = "sample",
    skip_bad: SkipBad = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the search; it draws validation images.")
    ] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Count images and classes, and list all that is wrong with them; exit code 3 if anything is.

    Every image is decoded, and kept so for a search of the default space. With -q only what is
    wrong is said.
    """
    from dataclasses import asdict

    from nasfuse.data.checking import survey
    from nasfuse.screens import make_console, print_json, say
    from nasfuse.space import load_space
    from nasfuse.terminal import decoding

    side = 2 * load_space("default").resolution
    with decoding(make_console(as_json), quiet=quiet):
        found = survey(data, side=side, seed=seed, skip_bad=skip_bad)
    if as_json:
        findings = [finding._asdict() for finding in found.findings]
        print_json({"schema_version": 1, **asdict(found), "findings": findings})
    else:
        console = make_console(False)
        for line in _lines(found, counts=not quiet):
            say(console, line)
    if not found.usable:
        raise typer.Exit(DataError.exit_code)


def _lines(found: Survey, *, counts: bool) -> Iterator[str]:
    if found.counts and counts:
        total = sum(sum(counts) for counts in found.counts.values())
        channels, height, width = found.shape
        yield (
            f"{found.source}: {total:,} images in {len(found.classes)} classes, "
            f"{'grey' if channels == 1 else 'colour'}, kept as {width} x {height} pixels"
            + (f", fingerprint {found.fingerprint}" if found.fingerprint else "")
        )
        yield from _table(found)
    for finding in found.findings:
        code = f"[{DataError.code}]" if finding.level == "error" else ""
        yield f"{finding.level}{code}: {finding.what}"
        for name in ("where", "why", "fix"):
            if text := getattr(finding, name):
                yield f"  {name + ':':<6} {text}"
    yield from _rows([f"  {path}: {reason}" for path, reason in found.unreadable.items()], "files")
    if not counts:
        return
    errors = sum(finding.level == "error" for finding in found.findings)
    warnings = len(found.findings) - errors
    yield f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _table(found: Survey) -> Iterator[str]:
    wide = max(5, *(len(name) for name in found.classes))
    yield f"{'class':<{wide}}" + "".join(f"{name:>12}" for name in found.counts)
    rows = zip(found.classes, *found.counts.values(), strict=True)
    yield from _rows(
        [
            f"{name:<{wide}}" + "".join(f"{count:>12,}" for count in counts)
            for name, *counts in rows
        ],
        "classes",
    )


def _rows(lines: list[str], what: str) -> Iterator[str]:
    yield from lines[:ROWS]
    if len(lines) > ROWS:
        yield f"... and {len(lines) - ROWS} more {what}; --json lists all"
