"""CIFAR's archives from a server, from the cache, from the working folder and damaged."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nasfuse.data import cifar
from nasfuse.data.cifar import ARCHIVES, PIXELS, Archive
from nasfuse.data.load import load_dataset, load_test
from nasfuse.errors import DataError

Archives = Mapping[str, Archive]


def content(archive: Archive, *, each: int, classes: int) -> dict[str, bytes]:
    """Every file of an archive; the first pixel of an image is its label, or its fine one."""
    labels = np.tile(np.arange(classes, dtype=np.uint8), each)
    images = np.random.default_rng(0).integers(0, 255, (len(labels), PIXELS), dtype=np.uint8)
    images[:, 0] = labels
    columns = [labels // 5] * (archive.label_bytes - 1) + [labels]
    records = np.concatenate([np.stack(columns, axis=1), images], axis=1).tobytes()
    files = dict.fromkeys((*archive.train, *archive.test), records)
    names = "".join(f"name{number}\n" for number in range(classes))
    return {**files, archive.names: (names + "\n").encode(), "readme.html": b"<html>"}


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def with_sums(folder: Path) -> Archives:
    """The table of archives, with the checksums of these."""
    return {
        name: archive._replace(
            sha256=hashlib.sha256((folder / archive.file).read_bytes()).hexdigest()
        )
        for name, archive in ARCHIVES.items()
        if (folder / archive.file).is_file()
    }


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a local server that stands in for Toronto's; cache and work are empty."""
    folder = tmp_path / "served"
    folder.mkdir()
    pack(folder / ARCHIVES["cifar10"].file, content(ARCHIVES["cifar10"], each=4, classes=10))
    pack(folder / ARCHIVES["cifar100"].file, content(ARCHIVES["cifar100"], each=2, classes=100))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NASFUSE_CIFAR_URL", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "classes", "train"), [("cifar10", 10, 200), ("cifar100", 100, 200)]
)
def test_download_then_cache(
    served: Path, tmp_path: Path, name: str, classes: int, train: int
) -> None:
    archives = with_sums(served)
    dataset = cifar.load(name, archives=archives)
    assert cached(tmp_path) == [ARCHIVES[name].file]
    assert dataset.classes == tuple(f"name{number}" for number in range(classes))
    assert len(dataset.train) + len(dataset.validation) == 200
    for split in (dataset.train, dataset.validation, cifar.load_test(name, archives=archives)):
        assert split.images.shape[1:] == (3, 32, 32)
        assert (split.images[:, 0, 0, 0] == split.labels).all()
        assert np.ptp(np.bincount(split.labels)) == 0
    (served / ARCHIVES[name].file).unlink()
    assert cifar.load(name, archives=archives).fingerprint == dataset.fingerprint


def test_the_working_folder_goes_before_the_server(
    served: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NASFUSE_CIFAR_URL", "http://127.0.0.1:9")
    file = ARCHIVES["cifar10"].file
    (tmp_path / "work" / file).write_bytes((served / file).read_bytes())
    assert len(cifar.load_test("cifar10", archives=with_sums(served))) == 40
    assert cached(tmp_path) == []


def test_an_archive_by_its_path(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar.load, "__kwdefaults__", {"archives": with_sums(served)})
    monkeypatch.setattr(cifar.load_test, "__kwdefaults__", {"archives": with_sums(served)})
    path = str(served / ARCHIVES["cifar10"].file)
    assert load_dataset(path, side=8).name == "cifar10"
    assert load_test(path, side=8) is not None


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_wrong_checksum_leaves_nothing(served: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load_dataset(name, side=8)
    assert ARCHIVES[name].sha256 in caught.value.why
    assert "--data sample" in caught.value.fix
    assert cached(tmp_path) == []


def test_no_server(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFUSE_CIFAR_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="could not be downloaded"):
        load_dataset("cifar10", side=8)
    assert cached(tmp_path) == []


def test_more_bytes_than_allowed(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="more than the 1,000 bytes"):
        cifar.load("cifar10", archives=with_sums(served))
    assert cached(tmp_path) == []


def test_a_local_archive_with_another_checksum(served: Path) -> None:
    with pytest.raises(DataError, match="not the published one"):
        load_dataset(str(served / ARCHIVES["cifar10"].file), side=8)


def load_packed(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    path = tmp_path / ARCHIVES["cifar10"].file
    pack(path, files)
    cifar.load("cifar10", path, archives=with_sums(tmp_path))


def test_unfit_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = ARCHIVES["cifar10"]
    files = content(archive, each=4, classes=10)
    without = {name: data for name, data in files.items() if name != archive.train[2]}
    cut = {**files, archive.train[0]: files[archive.train[0]][:-1]}
    for wrong, said in ((without, "it has no .*batch_3"), (cut, "are no images of 3,073 bytes")):
        with pytest.raises(DataError, match=said):
            load_packed(tmp_path, wrong)
    monkeypatch.setattr(cifar, "MAX_BYTES", 100_000)
    with pytest.raises(DataError, match="unpacks to more than"):
        load_packed(tmp_path, files)


def test_links_are_not_followed(tmp_path: Path) -> None:
    archive = ARCHIVES["cifar10"]
    path = tmp_path / archive.file
    with tarfile.open(path, "w:gz") as tar:
        for name in (*archive.train, archive.names):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    with pytest.raises(DataError, match="it has no"):
        cifar.load("cifar10", path, archives=with_sums(tmp_path))


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVES["cifar10"].file
    for content in (b"", b"\x1f\x8b", b"text" * 1000):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            cifar.load("cifar10", path, archives=with_sums(tmp_path))
