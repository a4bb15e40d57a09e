"""From image files of any kind to one array of square pixels."""

from __future__ import annotations

import os
import shlex
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nasfuse.errors import DataError

MAX_PIXELS = 50_000_000
# Pillow would also open what runs other programs (EPS), whatever the name ends in
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_GREY = _DEEP | {"1", "L", "LA"}
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


def decode(paths: Sequence[Path], *, side: int, grey: bool) -> NDArray[np.uint8]:
    """Images (n, 1 if grey else 3, side, side) in the order of the paths.

    Of moving pictures the first frame. Raises one DataError for all files that cannot be decoded.
    """
    pixels = np.empty((len(paths), 1 if grey else 3, side, side), np.uint8)

    def fill(index: int) -> str | None:
        try:
            pixels[index] = _decode_one(paths[index], side=side, grey=grey)
        except _DAMAGE as error:
            return _reason(error)
        return None

    with _threads() as pool:
        reasons = list(pool.map(fill, range(len(paths))))
    failed = {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}
    if failed:
        raise _unreadable(dict(sorted(failed.items())), len(paths))
    return pixels


def all_grey(paths: Sequence[Path]) -> bool:
    """Whether no file holds colours, by the headers alone; a damaged one is left to `decode`."""

    def grey(path: Path) -> bool:
        try:
            with Image.open(path, formats=FORMATS) as image:
                return image.mode in _GREY
        except _DAMAGE:
            return True

    with _threads() as pool:
        return all(pool.map(grey, paths))


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads are enough, as Pillow releases the interpreter's lock while it decodes.

    Its warning of a decompression bomb becomes an error; filters are of the process, so they are
    set here, once, and not in the threads.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield pool


def _decode_one(path: Path, *, side: int, grey: bool) -> NDArray[np.uint8]:
    with Image.open(path, formats=FORMATS) as image:
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
        return Image.fromarray((values // 256).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


def _unreadable(failed: dict[Path, str], total: int) -> DataError:
    shown = [f"{path}: {reason}" for path, reason in list(failed.items())[:3]]
    names = " ".join(shlex.quote(str(path)) for path in list(failed)[:20])
    return DataError(
        f"{len(failed)} of {total} images cannot be read",
        where=os.path.commonpath([path.parent for path in failed]),
        why="; ".join(shown) + ("; ..." if len(failed) > 3 else ""),
        fix=f"mkdir -p unreadable && mv -n {names} unreadable/",
    )
