"""What a shell offers for a word that is being typed; read from folders, nothing is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from nasfuse.names import OBJECTIVES, SAMPLERS, reference_names, space_names, study_names


def studies(incomplete: str) -> list[str]:
    folder = Path(os.environ.get("NASFUSE_STUDIES", "studies"))
    return [name for name in reversed(study_names(folder)) if name.startswith(incomplete)]


def spaces(incomplete: str) -> list[str]:
    return [name for name in space_names() if name.startswith(incomplete)]


def architectures(incomplete: str) -> list[str]:
    return [name for name in reference_names() if name.startswith(incomplete)]


def samplers(incomplete: str) -> list[str]:
    return [name for name in SAMPLERS if name.startswith(incomplete)]


def objectives(incomplete: str) -> list[str]:
    return [name for name in OBJECTIVES if name.startswith(incomplete)]


def trials(incomplete: str) -> list[str]:
    """A study, or the best network of the newest one."""
    return [name for name in [*studies(incomplete), "best"] if name.startswith(incomplete)]
