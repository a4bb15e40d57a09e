"""What a study is set beside: a random search for the same, where somebody has run one."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from nasfuse.commands import elsewhere_option, random_search
from nasfuse.errors import NasfuseError
from nasfuse.names import study_names
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study

# what two studies must have in common for their hypervolumes to be compared
SAME = (
    "budget",
    "fingerprint",
    "objective",
    "front_from",
    "max_params",
    "max_latency",
    "recipe",
    "space",
)


class Beside(NamedTuple):
    """The results of a random search, or what to say where there is none.

    `show` is the command that says everything about a trial when its key is added, `make` the one
    for the random search that is lacking.
    """

    random: list[Result]
    hint: str
    show: str
    make: str = ""


def beside(study: Study) -> Beside:
    """The largest random search for the same that lies beside the study."""
    name = shlex.quote(study.folder.name)
    show = f"nasfuse show{elsewhere_option(study.folder.parent)} {name}"
    if study.settings.sampler == "random":
        return Beside([], "This search is the random one.", show)
    found = [other for other in _neighbours(study) if _is_random_for(study.settings, other)]
    results = max(map(_results, found), key=len, default=[])
    if results:
        return Beside(results, "", show)
    hint = "No random search for the same lies beside this one. To run it:"
    return Beside([], hint, show, random_search(study))


def _neighbours(study: Study) -> list[Study]:
    """The other studies of the folder that can be read."""
    found = []
    for name in study_names(study.folder.parent):
        try:
            other = Study.open(study.folder.parent / name)
        except NasfuseError:
            continue  # of another version, say: it is nobody's business here
        if other.settings.id != study.settings.id:
            found.append(other)
    return found


def _results(other: Study) -> list[Result]:
    """No results where they are damaged, which is said by who opens that study."""
    try:
        return other.results
    except NasfuseError:
        return []


def _is_random_for(settings: Settings, other: Study) -> bool:
    theirs = other.settings
    equal = all(getattr(theirs, name) == getattr(settings, name) for name in SAME)
    return theirs.sampler == "random" and equal
