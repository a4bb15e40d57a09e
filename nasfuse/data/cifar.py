"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, Learning multiple layers of features from tiny images).

Read from the official binary archives, which hold bytes and names and nothing that runs. One is
taken from the working folder or a path that was given, else from the cache, else from Toronto's
server into the cache. It is read in memory, member by member, and only with the right checksum.
"""

from __future__ import annotations

import os
import shlex
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.data.downloads import Download, cache_folder, fetch, has_checksum
from nasfuse.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
VALIDATION_SHARE = 10  # one in 10 of each class
MAX_MEMBERS, MAX_BYTES = 100, 400 << 20  # of an archive, unpacked
INSTEAD = "--data sample   needs no download; or put the archive into this folder"


class Archive(NamedTuple):
    """Where an archive keeps what; of several label bytes of an image the last one is used."""

    file: str
    sha256: str
    label_bytes: int
    names: str
    train: tuple[str, ...]
    test: tuple[str, ...]


ARCHIVES: Mapping[str, Archive] = {
    "cifar10": Archive(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        1,
        "cifar-10-batches-bin/batches.meta.txt",
        tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        ("cifar-10-batches-bin/test_batch.bin",),
    ),
    "cifar100": Archive(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        2,
        "cifar-100-binary/fine_label_names.txt",
        ("cifar-100-binary/train.bin",),
        ("cifar-100-binary/test.bin",),
    ),
}


def archive_name(path: Path) -> str | None:
    """The data set whose archive a file is by its name."""
    return next((name for name, a in ARCHIVES.items() if a.file == path.name), None)


def load(
    name: str, path: Path | None = None, *, archives: Mapping[str, Archive] = ARCHIVES
) -> Dataset:
    """A tenth of the training images is for validation, always the same. Raises as `read` does."""
    classes, whole = read(name, path, test=False, archives=archives)
    chosen = draw(whole.labels, lambda size: max(1, size // VALIDATION_SHARE), seed=0)
    validation, train = divide(whole, chosen)
    return assemble(name, classes, train=train, validation=validation)


def load_test(
    name: str, path: Path | None = None, *, archives: Mapping[str, Archive] = ARCHIVES
) -> Split:
    """The 10,000 test images. Raises as `read` does."""
    return read(name, path, test=True, archives=archives)[1]


def read(
    name: str, path: Path | None, *, test: bool, archives: Mapping[str, Archive]
) -> tuple[tuple[str, ...], Split]:
    """Classes, and images (n, 3, 32, 32) with their labels in the order of the archive.

    Raises DataError for an archive that is not the published one or that cannot be downloaded,
    StorageError for a full disk.
    """
    archive = archives[name]
    found = _checked(path, archive) if path else _locate(name, archive)
    members = archive.test if test else archive.train
    try:
        content = _members(found, {archive.names, *members})
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(found, str(error)) from error
    records = [_records(found, content[member], archive.label_bytes) for member in members]
    table = np.concatenate(records)
    labels = table[:, archive.label_bytes - 1].astype(np.int64)
    images = table[:, archive.label_bytes :].reshape(-1, *SHAPE)
    classes = tuple(content[archive.names].decode("ascii", "replace").split())
    return classes, Split(np.ascontiguousarray(images), labels)


def _records(path: Path, content: bytes, label_bytes: int) -> NDArray[np.uint8]:
    size = label_bytes + PIXELS
    if not content or len(content) % size:
        raise _damaged(path, f"{len(content):,} bytes are no images of {size:,} bytes")
    return np.frombuffer(content, np.uint8).reshape(-1, size)


def _members(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """The content of these plain files. Nothing is written, and no link is followed."""
    content: dict[str, bytes] = {}
    total = 0
    with tarfile.open(path, "r:gz") as tar:
        for count, member in enumerate(tar, 1):
            total += member.size
            if count > MAX_MEMBERS or total > MAX_BYTES or member.size < 0:
                raise ValueError(f"it unpacks to more than {MAX_BYTES >> 20} MB")
            if member.name in wanted and member.isreg():
                tarfile.data_filter(member, ".")  # refuses what would not be safe to unpack either
                stream = tar.extractfile(member)
                assert stream is not None  # it is a plain file
                content[member.name] = stream.read()
    missing = wanted - set(content)
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    return content


def _locate(name: str, archive: Archive) -> Path:
    cached = cache_folder() / name / archive.file
    for path in (Path(archive.file), cached):
        if path.is_file():
            return _checked(path, archive)
    url = (os.environ.get("NASFUSE_CIFAR_URL") or URL).rstrip("/") + "/" + archive.file
    checksum = ("sha256", archive.sha256)
    return fetch(Download(name, url, checksum, MAX_BYTES, INSTEAD), cached)


def _checked(path: Path, archive: Archive) -> Path:
    if not has_checksum(path, ("sha256", archive.sha256)):
        raise _damaged(path, f"its SHA-256 is not the published {archive.sha256}")
    return path


def _damaged(path: Path, why: str) -> DataError:
    command = f"rm {shlex.quote(str(path))} && nasfuse data check {archive_name(path)}"
    return DataError(
        "this archive is damaged or not the published one",
        where=str(path),
        why=why,
        fix=f"{command}   downloads it",
    )
