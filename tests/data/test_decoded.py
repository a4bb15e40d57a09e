"""Decoded images in the cache, and how other processes get them."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasfuse.data import decoded as module
from nasfuse.data import decoding
from nasfuse.data.dataset import Split
from nasfuse.data.decoded import decoded
from nasfuse.data.load import load_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Ten grey images, of which the third is damaged."""
    found = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(found):
        Image.new("L", (9, 9), 20 * number).save(path)
    found[2].write_bytes(b"<html>")
    return found


def kept(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each call had to decode."""
    counts: list[int] = []
    decode = decoding.decode

    def counting(paths: list[Path], *arguments: object, **options: object) -> decoding.Failures:
        counts.append(len(paths))
        return decode(paths, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decode", counting)
    return counts


def test_once_and_then_from_the_cache(paths: list[Path], cache: Path, counted: list[int]) -> None:
    for _ in range(2):
        images, bad, file = decoded(paths, side=4)
        assert images[:, 0, 0, 0].tolist() == [0, 20, *range(60, 200, 20)]
        assert images.shape == (9, 1, 4, 4)
        assert list(bad) == [2]
        assert isinstance(images, np.memmap)
        assert file is not None
    assert counted == [10]
    assert kept(cache) == [".json", ".pixels"]


def test_what_the_disk_failed_at_is_tried_again(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = decoding._opened

    def failing(path: Path) -> Image.Image:
        if path == paths[0]:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_opened", failing)
        assert list(decoded(paths, side=4, grey=True).bad) == [0, 2]
    assert list(decoded(paths, side=4, grey=True).bad) == [2]


def test_a_cache_that_may_only_be_read_is_used(
    paths: list[Path], counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(paths, side=4)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert decoded(paths, side=4).file is not None
    assert counted == [10]


def test_found_by_content_and_order(paths: list[Path], counted: list[int]) -> None:
    decoded(paths, side=4)
    moved = [path.rename(path.with_suffix(".gif")) for path in paths]  # names do not matter
    decoded(moved, side=4)
    assert counted == [10]
    decoded(moved[::-1], side=4)
    decoded(moved, side=5)
    decoded(moved, side=4, grey=False)
    Image.new("L", (9, 9), 7).save(moved[0])
    assert decoded(moved, side=4).images[0, 0, 0, 0] == 7
    assert counted == [10] * 5


@pytest.mark.parametrize("damage", ["short", "no note", "no json", "no pixels"])
def test_a_damaged_cache_is_made_anew(
    paths: list[Path], cache: Path, counted: list[int], damage: str
) -> None:
    first = np.array(decoded(paths, side=4).images)
    pixels, note = next(cache.glob("*.pixels")), next(cache.glob("*.json"))
    match damage:
        case "short":
            pixels.write_bytes(pixels.read_bytes()[:-1])
        case "no note":
            note.write_text("[]")
        case "no json":
            note.write_text("{")
        case "no pixels":
            pixels.unlink()
    assert np.array_equal(decoded(paths, side=4).images, first)
    assert counted == [10, 10]


def test_without_a_cache_in_memory(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    mapped = decoded(paths, side=4)
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "file"))
    images, bad, file = decoded(paths, side=4)
    assert file is None
    assert bad == mapped.bad
    assert np.array_equal(images, mapped.images)


def test_a_full_disk_leaves_nothing(
    paths: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert decoded(paths, side=4).file is None
    assert list(cache.iterdir()) == []


def test_all_files_bad(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    for _ in range(2):
        images, bad, _ = decoded([tmp_path / "x.png"], side=4)
        assert (len(images), bad) == (0, {0: "it is empty"})


def test_the_oldest_go_when_room_is_needed(
    paths: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 400)
    for side in (4, 5, 6):  # 144, 225 and 324 bytes
        decoded(paths, side=side)
        left = cache / f".{side}.pixels.tmp-1-1"
        left.write_text("")
        os.utime(left, (0, 0))
    assert [path.stat().st_size for path in cache.glob("*.pixels")] == [324]
    assert sum(1 for _ in cache.iterdir()) == 3, "with the last one that was abandoned"


def test_two_processes_fill_one_cache_at_once(tmp_path: Path, cache: Path) -> None:
    """While one looks for room, the other renames the files that it is done with."""
    paths = [tmp_path / f"{number}.png" for number in range(24)]
    for number, path in enumerate(paths):
        Image.new("L", (5, 5), 10 * number).save(path)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nasfuse.data.decoded import decoded\n"
        "input()\n"
        "for side in range(1, 40):\n"
        "    found = decoded([*map(Path, sys.argv[1:])], side=side)\n"
        "    assert found.images[:, 0, 0, 0].tolist() == [*range(0, 240, 10)]\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    for one in both:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    assert [one.wait() for one in both] == [0, 0]
    assert kept(cache) == 39 * [".json"] + 39 * [".pixels"]


def test_two_at_once_agree(paths: list[Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: np.array(decoded(paths, side=4).images), range(8)))
    assert all(np.array_equal(images, found[0]) for images in found)


def folder(tmp_path: Path) -> str:
    for number in range(20):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 9 * number).save(path)
    return str(tmp_path / "photos")


def test_another_process_maps_the_same_file(tmp_path: Path) -> None:
    dataset = load_dataset(folder(tmp_path), side=64)
    packed = pickle.dumps(dataset, protocol=5)
    assert len(packed) < 3000 < dataset.validation.images.nbytes
    (tmp_path / "packed").write_bytes(packed)
    code = (
        "import pickle, pathlib, numpy as np\n"
        "from nasfuse.data.dataset import fingerprint\n"
        "d = pickle.loads(pathlib.Path('packed').read_bytes())\n"
        "assert isinstance(d.train.images, np.memmap) and not d.train.images.flags.writeable\n"
        "print(fingerprint(d.classes, train=d.train, validation=d.validation))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == dataset.fingerprint


def test_for_other_machines_all_is_packed(tmp_path: Path) -> None:
    dataset = load_dataset(folder(tmp_path), side=16)
    found = pickle.loads(pickle.dumps(dataset.in_memory()))
    for one, other in ((found.train, dataset.train), (found.validation, dataset.validation)):
        assert one.file is None
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
    assert isinstance(pickle.loads(pickle.dumps(found.train)), Split)
