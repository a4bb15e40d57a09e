"""Options and arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.cli import completing
from nasfuse.errors import UsageError

if TYPE_CHECKING:
    from nasfuse.searching.study import Study

Studies = Annotated[
    Path, typer.Option("--studies", envvar="NASFUSE_STUDIES", help="Folder of all studies.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")]
StudyName = Annotated[
    str | None,
    typer.Argument(help="A study; the newest if left out.", autocompletion=completing.studies),
]
StudyOption = Annotated[
    str | None,
    typer.Option(help="The study.  [default: the newest]", autocompletion=completing.studies),
]
TrialWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY] [TRIAL]",
        help="A study, and best (the default), a trial's number or its key.",
        autocompletion=completing.trials,
    ),
]
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


def study_and_trial(studies: Path, words: list[str] | None, name: str | None) -> tuple[Study, str]:
    """What `STUDY TRIAL`, `STUDY`, `TRIAL` or nothing means; `name` is that of `--study`.

    Raises:
        UsageError: there are more words, or no such study.
    """
    from nasfuse.names import study_names
    from nasfuse.searching.study import find_study

    given = list(words or [])
    if len(given) > (1 if name else 2):
        raise UsageError(
            f"'{given[-1]}' is one word too many",
            where=" ".join(given),
            why="a study and a trial are enough",
            fix=" ".join(given[:-1]),
        )
    if not name and given and (len(given) == 2 or given[0] in study_names(studies)):
        name = given.pop(0)
    return find_study(studies, name), given[0] if given else "best"
