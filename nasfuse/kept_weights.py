"""Weights on the disk: safetensors, which cannot carry code. Their checksum is kept elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from nasfuse.errors import StorageError
from nasfuse.files import write_bytes

HEADER = 1 << 20  # bytes that the names and shapes in a file may take beside twice its numbers


def save_weights(path: Path, network: nn.Module, *, key: str) -> str:
    """Write a network's weights, with the key of its architecture; returns the file's SHA-256.

    Raises:
        StorageError: the disk does not take it.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    content = save(tensors, metadata={"architecture": key})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def require_weights(path: Path, sha256: str | None, *, fix: str) -> Path:
    """The file, where it is there and, if its checksum is known, as it was written.

    Raises:
        StorageError: it is gone, cannot be read or was changed.
    """
    if not path.is_file():
        raise StorageError("the weights of this network are gone", where=str(path), fix=fix)
    if sha256 is None:
        return path
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(
            "the weights of this network cannot be read", where=str(path), why=str(error), fix=fix
        ) from None
    if found != sha256:
        raise StorageError(
            "the weights are not those that were trained",
            where=str(path),
            why="the file was changed after the training: its SHA-256 is another one",
            fix=fix,
        )
    return path


def load_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights of a file, which is not read where it is much too large.

    Raises:
        StorageError: the file is not one of weights, or not of this network's.
    """
    held = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        if (size := path.stat().st_size) > 2 * held + HEADER:
            raise ValueError(f"it has {size:,} bytes, and the network's weights {held:,}")
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise StorageError(
            "the weights are damaged, or of another network",
            where=str(path),
            why=" ".join(str(error).split())[:200],
            fix="give the same `nasfuse train` again in a folder of its own (--out)",
        ) from None
