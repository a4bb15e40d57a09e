"""Published networks as architectures without holes, by name: resnet50, densenet121, ..."""

from __future__ import annotations

import difflib
from pathlib import Path

from nasfuse.architecture import Architecture, read_architecture
from nasfuse.errors import DocumentError
from nasfuse.space import spaces_folder


def reference_names() -> list[str]:
    """The published networks that come with the package."""
    return sorted(path.stem for path in (spaces_folder() / "references").glob("*.yaml"))


def load_architecture(name: str) -> Architecture:
    """A network by the name of a published one, or by the path of a JSON or YAML file.

    Raises:
        DocumentError: there is no such network, or its document is wrong; a near match is offered.
    """
    folder = spaces_folder() / "references"
    path = folder / f"{name}.yaml" if name in reference_names() else Path(name)
    if path.is_file():
        return read_architecture(path)
    near = difflib.get_close_matches(name, reference_names(), 1)
    raise DocumentError(
        f"there is no architecture '{name}'",
        where="ARCHITECTURE",
        why=f"it is no file, and the networks that come with nasfuse are "
        f"{', '.join(reference_names())}",
        fix=f"nasfuse cost {near[0] if near else 'resnet50'}",
    )
