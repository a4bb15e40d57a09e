"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747): 70,000 images of clothes.

Taken from Debian's package `dataset-fashion-mnist` where that is installed, else from the cache,
else from Zalando's server into the cache.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.data.downloads import Download, cache_folder, fetch
from nasfuse.errors import DataError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# as published in https://github.com/zalandoresearch/fashion-mnist; Debian packs them anew
CHECKSUMS: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
VALIDATION_SHARE = 12  # one in 12: 500 images of each class
LIMIT = 30 << 20  # bytes of the largest file
MAX_BYTES = 48 << 20  # of what is in it: 60,000 images of 28 x 28 bytes are 45 MB
INSTEAD = "--data sample   needs no download; on Debian: sudo apt install dataset-fashion-mnist"

Part = Literal["train", "t10k"]


def load() -> Dataset:
    """55,000 training and 5,000 validation images, always the same. Raises as `read` does."""
    whole = read("train")
    chosen = draw(whole.labels, lambda size: size // VALIDATION_SHARE, seed=0)
    validation, train = divide(whole, chosen)
    return assemble("fashion-mnist", CLASSES, train=train, validation=validation)


def load_test() -> Split:
    """The 10,000 test images. Raises as `read` does."""
    return read("t10k")


def read(
    part: Part, *, debian: Path | None = None, checksums: Mapping[str, str] = CHECKSUMS
) -> Split:
    """Images (n, 1, height, width) and labels of one part, in the order of the files.

    Raises DataError for a damaged file or a failed download, StorageError for a full disk.
    """
    files = [f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"]
    paths = [_locate(file, debian or DEBIAN, checksums) for file in files]
    images, labels = parse(paths[0], dimensions=3), parse(paths[1], dimensions=1)
    if len(images) != len(labels):
        raise _damaged(paths[1], f"it has {len(labels)} labels for {len(images)} images")
    return Split(images[:, None], labels.astype(np.int64))


def parse(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of bytes. Raises DataError if it is not quite that."""
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_BYTES >> 20} MB")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))  # two zeros, 8 for unsigned bytes, dimensions
    if content[:4] != magic or len(content) < start:
        raise _damaged(path, f"it begins with {content[:4].hex()} instead of {magic.hex()}")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise _damaged(path, f"it holds {len(content)} bytes; for {shape} it needs {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _locate(file: str, debian: Path, checksums: Mapping[str, str]) -> Path:
    cached = cache_folder() / "fashion-mnist" / file
    for path in (debian / file, cached):
        if path.is_file():
            return path
    url = (os.environ.get("NASFUSE_FASHION_MNIST_URL") or URL).rstrip("/") + "/" + file
    checksum = ("md5", checksums[file])
    return fetch(Download("Fashion-MNIST", url, checksum, LIMIT, INSTEAD), cached)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        "this file of Fashion-MNIST is damaged",
        where=str(path),
        why=why,
        fix="sudo apt reinstall dataset-fashion-mnist"
        if path.parent == DEBIAN
        else f"rm '{path}'   and it is downloaded again",
    )
