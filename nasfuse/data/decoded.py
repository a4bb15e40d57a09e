"""Decoded images in the cache: one file of pixels for a list of image files, mapped into memory.

It is found by the content of the image files, in their order, so that it is right whatever became
of names and dates. Every process of a machine maps the same file and shares its memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from nasfuse.data.decoding import all_grey, decode, in_parallel
from nasfuse.data.downloads import cache_folder
from nasfuse.errors import StorageError
from nasfuse.files import replacing, write_text

VERSION = 1  # to be raised when the same files give other pixels
KEPT = 20 << 30  # bytes of the cache; beyond that the files that were not used for longest go
ABANDONED = 24 * 3600.0  # seconds after which nobody still writes a file
_log = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """uint8 images (n, channels, side, side) of the files that can be read, in their order.

    `bad` says why others cannot, by their place among the files. `file` is where the images are
    mapped from, None for images in memory.
    """

    images: NDArray[np.uint8]
    bad: dict[int, str]
    file: Path | None


def decoded(paths: Sequence[Path], *, side: int, grey: bool | None = None) -> Decoded:
    """The images from the cache, or decoded into it; `grey` None: if all of them are.

    Where the cache cannot be written they are decoded into memory.
    """
    place = cache_folder() / "decoded" / f"{_key(paths, side, grey)}.pixels"
    if found := _cached(place, len(paths), side):
        return found
    channels = 1 if (all_grey(paths) if grey is None else grey) else 3
    shape = (channels, side, side)
    try:
        return _kept(place, paths, shape)
    except StorageError as error:
        _log.warning("decoded images are not kept for the next time: %s", error.why)
    images = np.empty((len(paths), *shape), np.uint8)
    bad = decode(paths, images.__setitem__, side=side, grey=channels == 1).reasons
    return Decoded(np.delete(images, list(bad), axis=0) if bad else images, bad, None)


def _key(paths: Sequence[Path], side: int, grey: bool | None) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, PIL.__version__, side, grey]).encode())
    for content in in_parallel(_digest, paths, doing="reading"):
        digest.update(content)
    return digest.hexdigest()[:32]


def _digest(path: Path) -> bytes:
    """Of a file's content, or of why there is none: such a file is reported when it is decoded."""
    try:
        if not path.is_file():
            return hashlib.sha256(b"no file").digest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        return hashlib.sha256(str(error.strerror).encode()).digest()


def _cached(place: Path, files: int, side: int) -> Decoded | None:
    """What an earlier call kept, if it is whole."""
    try:
        note = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        bad = {int(index): str(reason) for index, reason in note["bad"].items()}
        shape = (files - len(bad), int(note["channels"]), side, side)
        if place.stat().st_size != int(np.prod(shape)):
            return None
        with suppress(OSError):  # it was used; another user's may be read only
            os.utime(place)
        return _mapped(place, shape, bad)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mapped(place: Path, shape: tuple[int, ...], bad: dict[int, str]) -> Decoded:
    if shape[0] == 0:  # nothing cannot be mapped
        return Decoded(np.empty(shape, np.uint8), bad, None)
    return Decoded(np.memmap(place, np.uint8, "r", shape=shape), bad, place)


def _kept(place: Path, paths: Sequence[Path], shape: tuple[int, int, int]) -> Decoded:
    """Decode into a file, image by image, and note beside it what could not be decoded."""
    size = int(np.prod(shape))
    with replacing(place) as part, part.open("w+b", buffering=0) as stream:
        disk = stream.fileno()

        def put(index: int, image: NDArray[np.uint8]) -> None:
            if os.pwrite(disk, image.tobytes(), index * size) != size:
                raise OSError(errno.ENOSPC, "the disk took a part of an image only")

        bad, passing = decode(paths, put, side=shape[1], grey=shape[0] == 1)
        good = [index for index in range(len(paths)) if index not in bad]
        for target, index in enumerate(good):
            if target != index:
                os.pwrite(disk, os.pread(disk, size, index * size), target * size)
        os.truncate(disk, len(good) * size)
    note = {"channels": shape[0], "bad": {str(index): reason for index, reason in bad.items()}}
    if not passing:  # without a note they are decoded again the next time
        write_text(place.with_suffix(".json"), json.dumps(note))
    found = _mapped(place, (len(good), *shape), bad)
    _make_room(place.parent, keep=place)
    return found


def _make_room(folder: Path, *, keep: Path) -> None:
    """Remove what killed processes left, and what was not used for longest beyond KEPT."""
    for part, about in _listed(folder, ".*.tmp-*"):
        if time.time() - about.st_mtime > ABANDONED:
            part.unlink(missing_ok=True)
    total = 0
    for path, about in sorted(_listed(folder, "*.pixels"), key=lambda found: -found[1].st_mtime):
        total += about.st_size
        if total > KEPT and path != keep:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def _listed(folder: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """Files and what the system says of them, but those that other processes rename meanwhile."""
    found = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found
