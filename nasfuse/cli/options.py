"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
SkipBad = Annotated[int, typer.Option(min=0, help="Leave out up to this many unreadable images.")]
STUDIES = Path("studies")
MAX_SEED = 2**31 - 1
