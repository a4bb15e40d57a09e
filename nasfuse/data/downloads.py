"""Files from the network, kept in the cache: whole and with the right checksum, or absent."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, NamedTuple

from platformdirs import user_cache_dir

from nasfuse.errors import DataError, StorageError
from nasfuse.files import replacing

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
_offline = ContextVar("offline", default=False)
_log = logging.getLogger(__name__)


class Download(NamedTuple):
    """A published file: of what, where it lies, its checksum and the most bytes that it may have.

    `checksum` is the algorithm and the digest, such as ("sha256", "58a8..."); `instead` is what to
    do without it.
    """

    title: str
    url: str
    checksum: tuple[str, str]
    limit: int
    instead: str


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: $NASFUSE_CACHE or the user's cache folder."""
    folder = Path(os.environ.get("NASFUSE_CACHE") or user_cache_dir("nasfuse"))
    return folder.absolute()  # Ray's workers run in folders of their own


@contextmanager
def no_downloads() -> Iterator[None]:
    """Only what is at hand: `fetch` raises DataError within."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def fetch(download: Download, path: Path) -> Path:
    """The file, downloaded to `path`.

    Raises DataError for a failed download or another content, StorageError for a full disk.
    """
    if _offline.get():
        raise _failed(download, "nothing is downloaded here")
    algorithm, published = download.checksum
    digest = hashlib.new(algorithm, usedforsecurity=False)
    _log.info("downloading %s", download.url)
    try:
        with replacing(path) as part, part.open("wb") as stream:
            for chunk in _chunks(download):
                digest.update(chunk)
                stream.write(chunk)
            if digest.hexdigest() != published:
                raise _failed(
                    download,
                    f"its {stream.tell():,} bytes have {algorithm.upper()} {digest.hexdigest()}, "
                    f"published is {published}",
                )
    except StorageError as error:
        raise StorageError(
            f"cannot keep the download {path.name}",
            where=str(path.parent),
            why=error.why,
            fix="export NASFUSE_CACHE=/a/folder/with/room",
        ) from error
    return path


def has_checksum(path: Path, checksum: tuple[str, str]) -> bool:
    """Whether a file that is there already is the published one."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, checksum[0]).hexdigest() == checksum[1]


def _chunks(download: Download) -> Iterator[bytes]:
    total = 0
    try:
        with urllib.request.urlopen(download.url, timeout=TIMEOUT) as response:
            while chunk := _read(response):
                total += len(chunk)
                if total > download.limit:
                    raise ValueError(f"it has more than the {download.limit:,} bytes it may have")
                yield chunk
            if response.length:  # http.client says nothing of it where one reads in parts
                raise ValueError(f"it ended {response.length:,} bytes too early")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(download, str(error) or type(error).__name__) from error


def _read(response: BinaryIO) -> bytes:
    return response.read(CHUNK)


def _failed(download: Download, why: str) -> DataError:
    return DataError(
        f"{download.title} could not be downloaded",
        where=download.url,
        why=why,
        fix=download.instead,
    )
