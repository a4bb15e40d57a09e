"""Fashion-MNIST from a server, from the cache and from damaged files; never from the network."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nasfuse.data import fashion_mnist
from nasfuse.data.downloads import cache_folder
from nasfuse.data.fashion_mnist import CLASSES, DEBIAN, load, load_test, parse, read
from nasfuse.errors import DataError, StorageError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    shape = np.array(array.shape, ">u4").tobytes()
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + shape + array.tobytes())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a local server that stands in for Zalando's; the cache is empty."""
    folder = tmp_path / "served"
    folder.mkdir()
    labels = np.repeat(np.arange(10, dtype=np.uint8), 12)
    images = np.arange(120 * 16, dtype=np.uint8).reshape(120, 4, 4)
    for part, count in (("train", 120), ("t10k", 20)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images[:count]))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels[:count]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NASFUSE_FASHION_MNIST_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-debian")
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def cached() -> list[str]:
    folder = cache_folder() / "fashion-mnist"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_download_then_cache(served: Path) -> None:
    sums = checksums(served)
    first = read("train", checksums=sums)
    assert first.images.shape == (120, 1, 4, 4)
    assert first.images[3, 0, 0].tolist() == [48, 49, 50, 51]
    assert cached() == [IMAGES, LABELS]
    (served / IMAGES).unlink()
    assert np.array_equal(read("train", checksums=sums).images, first.images)


def test_load_holds_out_a_twelfth(served: Path) -> None:
    for part in ("train", "t10k"):
        read(part, checksums=checksums(served))
    dataset = load()
    assert dataset.classes == CLASSES
    assert np.bincount(dataset.train.labels).tolist() == [11] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [1] * 10
    assert dataset.fingerprint == load().fingerprint
    assert len(load_test()) == 20


def test_wrong_checksum_leaves_nothing(served: Path) -> None:
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        read("train")
    assert fashion_mnist.CHECKSUMS[IMAGES] in caught.value.why
    assert cached() == []


def test_truncated_download_leaves_nothing(served: Path) -> None:
    sums = checksums(served)
    (served / IMAGES).write_bytes((served / IMAGES).read_bytes()[:-20])
    with pytest.raises(DataError, match="could not be downloaded"):
        read("train", checksums=sums)
    assert cached() == []


def test_missing_on_the_server(served: Path) -> None:
    sums = checksums(served)
    (served / LABELS).unlink()
    with pytest.raises(DataError, match="404"):
        read("train", checksums=sums)
    assert cached() == [IMAGES]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no url"])
def test_no_server(served: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("NASFUSE_FASHION_MNIST_URL", url)
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        read("train")
    assert "--data sample" in caught.value.fix
    assert cached() == []


def test_cache_that_cannot_be_written(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="NASFUSE_CACHE"):
        read("train", checksums=checksums(served))


def test_debian_goes_before_the_server(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFUSE_FASHION_MNIST_URL", "http://127.0.0.1:9")
    assert len(read("t10k", debian=served)) == 20
    assert cached() == []


def test_images_without_labels(served: Path) -> None:
    (served / LABELS).write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(DataError, match="7 labels for 120 images"):
        read("train", debian=served)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "begins with"),
        (b"not gzip", "gzip"),
        (idx(np.zeros((2, 4, 4), np.uint8))[:-12], "end"),
        (gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 1, 5))), "begins with 00000801"),
        (gzip.compress(bytes((0, 0, 8, 3, 0, 0))), "begins with"),
        (gzip.compress(bytes((0, 0, 8, 3)) + np.array([2, 4, 4], ">u4").tobytes()), "it needs 48"),
        (gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12), "it needs 7922816"),
        (gzip.compress(bytes(1 << 20)) * 49, "more than 48 MB"),
    ],
    # Not the bytes: gzip writes the time into them, and workers must collect the same tests.
    ids=["empty", "not gzip", "cut off", "labels", "short", "fewer pixels", "huge", "bomb"],
)
def test_damaged_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / IMAGES
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as caught:
        parse(path, dimensions=3)
    assert said in caught.value.why
    assert caught.value.fix.startswith("rm ")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_whole_set() -> None:
    dataset = load()
    assert dataset.train.images.shape == (55_000, 1, 28, 28)
    assert np.bincount(dataset.train.labels).tolist() == [5_500] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [500] * 10
    assert load_test().images.shape == (10_000, 1, 28, 28)
