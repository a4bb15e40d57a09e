"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747): 70,000 images of clothes.

Taken from Debian's package `dataset-fashion-mnist` where that is installed, else from the cache,
else from Zalando's server into the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.errors import DataError, StorageError

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
TIMEOUT = 30.0  # seconds without a byte

Part = Literal["train", "t10k"]
_log = logging.getLogger(__name__)


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
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
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


def cache_folder() -> Path:
    """Where downloads are kept: $NASFUSE_CACHE or the user's cache folder."""
    return Path(os.environ.get("NASFUSE_CACHE") or user_cache_dir("nasfuse")) / "fashion-mnist"


def _locate(file: str, debian: Path, checksums: Mapping[str, str]) -> Path:
    for folder in (debian, cache_folder()):
        if (folder / file).is_file():
            return folder / file
    url = (os.environ.get("NASFUSE_FASHION_MNIST_URL") or URL).rstrip("/") + "/" + file
    content = _download(url)
    received = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if received != checksums[file]:
        raise _no_download(
            url,
            f"its {len(content)} bytes have MD5 {received}, published is {checksums[file]}",
        )
    return _store(content, cache_folder() / file)


def _download(url: str) -> bytes:
    _log.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_download(url, str(error) or type(error).__name__) from error
    return content


def _store(content: bytes, path: Path) -> Path:
    """Written beside, then renamed: a file with the final name is always whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="part-") as scratch:
            part = Path(scratch) / path.name
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot keep the download {path.name}",
            where=str(path.parent),
            why=f"{error.strerror}; it needs {len(content):,} bytes",
            fix="export NASFUSE_CACHE=/a/folder/with/room",
        ) from error
    return path


def _no_download(url: str, why: str) -> DataError:
    return DataError(
        "Fashion-MNIST could not be downloaded",
        where=url,
        why=why,
        fix="--data sample   needs no download; on Debian: sudo apt install dataset-fashion-mnist",
    )


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        "this file of Fashion-MNIST is damaged",
        where=str(path),
        why=why,
        fix="sudo apt reinstall dataset-fashion-mnist"
        if path.parent == DEBIAN
        else f"rm '{path}'   and it is downloaded again",
    )
