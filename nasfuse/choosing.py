"""Which network is meant by what a user types: a trial, a study or an architecture."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nasfuse.architecture import Architecture
from nasfuse.commands import next_commands
from nasfuse.errors import UsageError
from nasfuse.finals import verdict
from nasfuse.names import nearest
from nasfuse.references import load_architecture, reference_names
from nasfuse.results import Result, result_front
from nasfuse.searching.study import Study, find_study, study_names


class Choice(NamedTuple):
    """A network, with its study and result where it is a trial."""

    architecture: Architecture
    study: Study | None = None
    result: Result | None = None


def find_network(what: str, *, trial: str | None, study: str | None, studies: Path) -> Choice:
    """What `what` names: a study (then `trial` of it, or its best), a trial of `study`, a network.

    A trial is `best`, a number or four or more digits of a key, by default of the newest study; an
    architecture is a file or the name of a published one. A study goes before all others.

    Raises:
        NasfuseError: there is nothing of that name, or it is not sound.
    """
    names = study_names(studies)
    if study is None and (what in names or (Path(what) / "study.yaml").is_file()):
        return _of_study(find_study(studies, what), trial or "best")
    if study is not None or re.fullmatch(r"best|\d+|[0-9a-f]{4,12}", what):
        if trial is not None and what not in ("best", trial):
            raise UsageError(
                f"'{what}' and --trial {trial} name two trials",
                where="--trial",
                fix="leave one out",
            )
        return _of_study(find_study(studies, study), trial or what)
    if Path(what).is_file() or what in reference_names():
        return Choice(load_architecture(what))
    near = nearest(what, [*names, *reference_names()])
    raise UsageError(
        f"there is no study, trial or architecture '{what}'",
        where=str(studies),
        why=f"the studies here are {', '.join(names)}" if names else "there is no study here",
        fix=near or "best, or the path of an architecture's file",
    )


def _of_study(study: Study, which: str) -> Choice:
    result = choose(study, which)
    return Choice(result.architecture, study, result)


def best_of(study: Study, results: Sequence[Result]) -> Result | None:
    """The best network of these results of a study; None where nothing is trained.

    It is the winner of the finals or the cheapest of those tied with it; without finals the most
    accurate network of the front.
    """
    found = verdict(results, study.settings.recipe.top, images=study.settings.validation)
    if found:
        return found.best.result
    front = result_front(results)
    return front[-1] if front else None


def choose(study: Study, which: str) -> Result:
    """A result of a study: `best`, a trial's number, or four or more digits of its key.

    Raises:
        UsageError: there is no such trained network.
    """
    results = study.results
    if which == "best" and (best := best_of(study, results)):
        return best
    front = result_front(results)
    firsts = (r for r in results if r.status == "complete" and not r.repeat)
    trained = sorted(firsts, key=lambda r: -r.rung)
    matches = [r for r in trained if str(r.number) == which]
    matches = matches or [r for r in trained if len(which) >= 4 and r.key.startswith(which)]
    if len({r.key for r in matches}) != 1:
        keys, name = (
            ", ".join(f"{r.number} ({r.key})" for r in front),
            shlex.quote(study.folder.name),
        )
        raise UsageError(
            f"study '{study.settings.name}' has no trained network '{which}'",
            where=str(study.folder),
            why=f"its front is {keys}" if front else "nothing has been trained in it yet",
            fix=f"nasfuse show {name} best" if front else next_commands(study)["resume"],
        )
    return matches[0]
