"""Options and arguments that several verbs share."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasfuse.cli import completing
from nasfuse.errors import UsageError
from nasfuse.names import nearest, study_names

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
NetworkWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY] [TRIAL] | NETWORK",
        help="A study, and best (the default), a trial's number or its key; or an architecture's "
        "file or name; or the folder of a training.",
        autocompletion=completing.trials,
    ),
]
TrialOption = Annotated[
    str | None, typer.Option(help="Of a study: best (the default), a number or a key.")
]
Trials = Annotated[int | None, typer.Option(min=1, help="Stop after this many different networks.")]
TimeLimit = Annotated[
    str | None, typer.Option(help="Stop after this time, such as 90s, 30m or 2h.  [default: 7m]")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Trials at once.  [default: one a core, or what the GPUs hold]"),
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Share of a GPU for each.  [default: as its memory allows, measured]"
    ),
]
RayAddress = Annotated[str | None, typer.Option(help="Join this Ray cluster.")]
SkipBad = Annotated[int, typer.Option(min=0, help="Leave out up to this many unreadable images.")]
STUDIES = Path("studies")
MAX_SEED = 2**31 - 1


def study_and_trial(
    verb: str, studies: Path, words: list[str] | None, name: str | None
) -> tuple[Study, str]:
    """What `STUDY TRIAL`, `STUDY`, `TRIAL` or nothing means; `name` is that of `--study`.

    Raises:
        UsageError: there are more words, which `verb` would be without, or no such study.
    """
    from nasfuse.searching.study import find_study

    given = list(words or [])
    _require_two(verb, [name, *given] if name else given)
    if not name and given and (len(given) == 2 or _is_study(verb, studies, given[0])):
        name = given.pop(0)
    return find_study(studies, name), given[0] if given else "best"


def network_and_trial(
    verb: str, words: list[str] | None, trial: str | None
) -> tuple[str, str | None]:
    """What names a network, and the trial of a study where there are two words or `--trial`.

    Raises:
        UsageError: there are more words, which `verb` would be without.
    """
    given = [*(words or ["best"]), *([trial] if trial else [])]
    _require_two(verb, given)
    return given[0], given[1] if len(given) == 2 else None


def _require_two(verb: str, given: list[str]) -> None:
    if len(given) > 2:
        raise UsageError(
            f"'{given[-1]}' is one word too many",
            where=" ".join(given),
            why="a study and a trial are enough",
            fix=f"{verb} {shlex.join(given[:2])}",
        )


def _is_study(verb: str, studies: Path, word: str) -> bool:
    """Whether the only word is a study; else it is a trial of the newest one.

    Raises:
        UsageError: it can be neither.
    """
    known = study_names(studies)
    if word in known or (Path(word) / "study.yaml").is_file():
        return True
    if re.fullmatch("best|[0-9a-f]+", word) or not known:
        return False
    raise UsageError(
        f"there is neither a study nor a trial '{word}'",
        where=str(studies),
        why=f"the studies here are {', '.join(known)}; a trial is best, a number or a key",
        fix=f"{verb} {shlex.quote(nearest(word, [*known, 'best']) or 'best')}",
    )
