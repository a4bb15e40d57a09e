"""Names that a user may choose, and the nearest to one that was misspelt.

Nothing heavy is imported here: a shell that completes a word, and a typo, are answered at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

SAMPLERS = ("guided", "evolution", "tpe", "nsga2", "random")  # the default comes first

Objective = Literal["macs", "params", "latency"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def is_reference(origin: str) -> bool:
    """Whether a network of this origin is a hand-made member of its space."""
    return origin not in SAMPLERS


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be: one like it, or the only one it begins."""
    known = {name.lower(): name for name in names}
    given = word.strip().lower().replace("_", "-" if any("-" in name for name in known) else "_")
    near = difflib.get_close_matches(given, known, 1)
    begun = [name for name in known if given and name.startswith(given)]
    if not near and len(begun) == 1:
        near = begun
    return known[near[0]] if near else None


def spaces_folder() -> Path:
    """Where the spaces that come with the package lie: inside it, or beside it in a checkout."""
    inside = Path(__file__).parent / "search_spaces"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "search_spaces"


def space_names() -> list[str]:
    """The spaces that come with the package."""
    return sorted(path.stem for path in spaces_folder().glob("*.yaml"))


def reference_names() -> list[str]:
    """The published networks that come with the package."""
    return sorted(path.stem for path in (spaces_folder() / "references").glob("*.yaml"))


def is_study_name(name: str) -> bool:
    """Whether it can be the name of one folder, which is seen."""
    return bool(name) and Path(name).name == name and not name.startswith(".")


def study_names(studies: Path) -> list[str]:
    """The studies in a folder, the one that was used last at the end."""
    found = [path.parent for path in studies.glob("*/study.yaml")]
    return [folder.name for folder in sorted(found, key=_last_use)]


def _last_use(folder: Path) -> tuple[float, str]:
    paths = (folder / "study.yaml", folder / "results.jsonl")
    return max(path.stat().st_mtime for path in paths if path.exists()), folder.name
