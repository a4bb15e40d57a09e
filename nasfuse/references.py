"""Published networks as architectures without holes, by name: resnet50, densenet121, ..."""

from __future__ import annotations

from pathlib import Path

from nasfuse.architecture import Architecture, read_architecture
from nasfuse.errors import DocumentError
from nasfuse.names import nearest, spaces_folder
from nasfuse.names import reference_names as reference_names


def load_architecture(name: str) -> Architecture:
    """A network by the name of a published one, or by the path of a JSON or YAML file.

    Raises:
        DocumentError: there is no such network, or its document is wrong; a near match is offered.
    """
    folder = spaces_folder() / "references"
    path = folder / f"{name}.yaml" if name in reference_names() else Path(name)
    if path.is_file():
        return read_architecture(path)
    raise DocumentError(
        f"there is no architecture '{name}'",
        where="ARCHITECTURE",
        why=f"it is no file, and the networks that come with nasfuse are "
        f"{', '.join(reference_names())}",
        fix=f"nasfuse cost {nearest(name, reference_names()) or 'resnet50'}",
    )
