"""From image files of any kind to square pixels."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nasfuse.errors import DataError

MAX_PIXELS = 50_000_000
# Pillow would also open what runs other programs (EPS), whatever the name ends in
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_TWELVE_BITS = 1 << 12
_GREY = _DEEP | {"1", "L", "LA"}
# how files begin that are often found under an image's name
_OTHER = {
    rb"\s*<(!doctype html|html|head|!--)": "a web page",
    rb"\s*<(\?xml|svg)": "an XML or SVG file",
    rb"....ftyp(heic|heix|mif1|msf1|hevc)": "a HEIC photo, which has to be converted",
    rb"....ftypavif": "an AVIF file, which has to be converted",
    rb"(II\*\0|MM\0\*)": "a TIFF file, which has to be converted",
    rb"%!PS|%PDF": "a PostScript or PDF file",
    rb"PK\x03\x04": "a zip archive",
}
BATCH = 64  # images that a thread takes at once
PROGRESS = logging.getLogger("nasfuse.data.progress")
T = TypeVar("T")
R = TypeVar("R")
# what Pillow's decoders raise, between them, on damaged files
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


Put = Callable[[int, NDArray[np.uint8]], None]


class Failures(NamedTuple):
    """Why images cannot be decoded, by their place, and whether one might be another time."""

    reasons: dict[int, str]
    passing: bool


def decode(paths: Sequence[Path], put: Put, *, side: int, grey: bool) -> Failures:
    """Hand each image, (1 if grey else 3, side, side), to `put` with its place among the paths.

    Of moving pictures the first frame. What `put` raises is raised.
    """

    def one(index: int) -> tuple[int, Exception] | None:
        try:
            pixels = _decode_one(paths[index], side=side, grey=grey)
        except _DAMAGE as error:
            return index, error
        put(index, pixels)
        return None

    with _bombs_are_errors():
        failed = dict(filter(None, in_parallel(one, range(len(paths)), doing="decoding")))
    reasons = {index: _reason(paths[index], error) for index, error in failed.items()}
    return Failures(reasons, any(map(_passes, failed.values())))


def _passes(error: Exception) -> bool:
    """Whether it is of the system, as of a disk on a network, and not of the file."""
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EACCES)


def all_grey(paths: Iterable[Path]) -> bool:
    """Whether no file holds colours, by the headers alone; a damaged one is left to `decode`."""

    def grey(path: Path) -> bool:
        try:
            with _opened(path) as image:
                return image.mode in _GREY
        except _DAMAGE:
            return True

    with _bombs_are_errors():
        return all(map(grey, paths))  # up to the first in colours, which mostly is the first


class Looks(NamedTuple):
    """Of an image: width and height, whether it moves, and whether 16 bits hold 12 at most."""

    size: tuple[int, int]
    moves: bool
    shallow: bool


def looks(paths: Sequence[Path]) -> list[Looks | None]:
    """What headers say, and of 16-bit images the pixels; None where there is no such header."""

    def look(path: Path) -> Looks | None:
        try:
            with _opened(path) as image:
                shallow = image.mode in _DEEP and bool(np.asarray(image).max() < _TWELVE_BITS)
                return Looks(image.size, bool(getattr(image, "is_animated", False)), shallow)
        except _DAMAGE:
            return None

    with _bombs_are_errors():
        return in_parallel(look, paths)


def in_parallel(function: Callable[[T], R], items: Sequence[T], *, doing: str = "") -> list[R]:
    """The results in the order of the items; threads, as Pillow and hashes leave Python's lock.

    How far it is goes to the log PROGRESS, for whoever wants to show it, under the name of what it
    is `doing`.
    """
    parts = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    results: list[R] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda part: [function(item) for item in part], parts):
            results += done
            if doing:
                PROGRESS.info("%s %d of %d images", doing, len(results), len(items))
    return results


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Pillow's warning of a decompression bomb raises.

    Filters are of the process, so they are set here, once, and not in the threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that does not keep a file from being decoded
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(path: Path) -> Image.Image:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no regular file")
    return Image.open(path, formats=FORMATS)


def _decode_one(path: Path, *, side: int, grey: bool) -> NDArray[np.uint8]:
    with _opened(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels; the limit is 50 million")
        # a JPEG can be decoded at a fraction of its size: several times faster for photographs
        image.draft(None, (2 * side, 2 * side))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        plain = _plain(image).convert("L" if grey else "RGB")
        square = ImageOps.fit(plain, (side, side), Image.Resampling.BICUBIC)
    array = np.asarray(square)
    return array[None] if grey else array.transpose(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """Eight bits a channel and nothing transparent, which is what `convert` can be trusted with."""
    if image.mode in _DEEP:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"values from {values.min()} to {values.max()} are not 16-bit")
        if "transparency" in image.info:
            raise ValueError("it is 16-bit grey with a transparent colour")
        return Image.fromarray((values // 256).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as stream:
            start = stream.read(64)
        if not start:
            return "it is empty"
        for beginning, kind in _OTHER.items():
            if re.match(beginning, start, re.DOTALL | re.IGNORECASE):
                return f"it is {kind}, not an image"
        return f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


def unreadable(root: Path, failed: Mapping[Path, str], total: int) -> DataError:
    """One error for all files below a folder that cannot be decoded; the first with reasons."""
    failed = dict(sorted(failed.items()))
    shown = [f"{path}: {reason}" for path, reason in list(failed.items())[:3]]
    names = " ".join(shlex.quote(str(path)) for path in list(failed)[:20])
    beside = shlex.quote(str(root.resolve().with_name("unreadable")))  # inside it were a class
    return DataError(
        f"{len(failed)} of {total} images cannot be read",
        where=os.path.commonpath([path.parent for path in failed]),
        why="; ".join(shown) + ("; ..." if len(failed) > 3 else ""),
        fix=f"--skip-bad {len(failed)}   leaves them out; or "
        f"mkdir -p {beside} && mv -n {names} {beside}/",
    )
