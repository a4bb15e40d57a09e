"""Images that are arrays: .npz files, functions, and the digits of scikit-learn."""

from __future__ import annotations

import contextlib
import io
import random
import re
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasfuse.data import digits
from nasfuse.data.arrays import is_function
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import absolute, load_dataset, load_test, runs_code
from nasfuse.errors import DataError, SetupError


def some(count: int = 40, *shape: int, classes: int = 2) -> dict[str, Any]:
    """Images whose first pixel is their label."""
    labels = np.arange(count) % classes
    images = np.random.default_rng(0).integers(0, 255, (count, *(shape or (9, 9))), dtype=np.uint8)
    images.reshape(count, -1)[:, 0] = labels
    return {"images": images, "labels": labels}


def load(path: Path, **arrays: Any) -> Dataset:
    np.savez(path / "x.npz", **arrays)
    return load_dataset(str(path / "x.npz"), side=8)


def test_a_fifth_is_held_out(tmp_path: Path) -> None:
    dataset = load(tmp_path, **some(40))
    assert (dataset.name, dataset.classes) == ("x", ("0", "1"))
    assert np.bincount(dataset.train.labels).tolist() == [16, 16]
    assert np.bincount(dataset.validation.labels).tolist() == [4, 4]
    for split in (dataset.train, dataset.validation):
        assert (split.images[:, 0, 0, 0] == split.labels).all()
    assert load_test(str(tmp_path / "x.npz"), side=8) is None
    other = load_dataset(str(tmp_path / "x.npz"), side=8, seed=1)
    assert other.fingerprint != dataset.fingerprint


def test_all_that_may_be_given(tmp_path: Path) -> None:
    test = {f"test_{name}": value for name, value in some(10).items()}
    held = {f"validation_{name}": value for name, value in some(6).items()}
    dataset = load(tmp_path, **some(20), **test, **held, classes=["cat", "dog"])
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation)) == (20, 6)
    found = load_test(str(tmp_path / "x.npz"), side=8)
    assert found is not None
    assert found.labels.tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["b", "a"] * 10, None, ("a", "b")),
        (["b", "a"] * 10, ["b", "a"], ("b", "a")),
        ([7, 3] * 10, None, ("3", "7")),
    ],
)
def test_labels_by_name(
    tmp_path: Path, labels: list[Any], classes: list[str] | None, expected: tuple[str, ...]
) -> None:
    arrays = some(20) | {"labels": np.array(labels)} | ({"classes": classes} if classes else {})
    tests = {"test_images": some(2)["images"], "test_labels": np.array(labels[:2])}
    dataset = load(tmp_path, **arrays, **tests)
    assert dataset.classes == expected
    first = expected.index(str(labels[0]))
    found = load_test(str(tmp_path / "x.npz"), side=8)
    assert found is not None
    assert found.labels.tolist() == [first, 1 - first]
    for split in (dataset.train, dataset.validation):  # the first pixel says 0 for the first label
        assert ((split.images[:, 0, 0, 0] == 0) == (split.labels == first)).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), (1, 8, 8)),
        ((8, 8, 1), (1, 8, 8)),
        ((8, 10, 3), (3, 8, 8)),
        ((3, 12, 8), (3, 8, 8)),
    ],
)
def test_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert load(tmp_path, **some(20, *shape)).train.images.shape[1:] == expected


def test_channels_keep_their_place(tmp_path: Path) -> None:
    images = np.zeros((20, 6, 4, 3), np.uint8)
    images[..., 2] = np.arange(6)[:, None]  # blue says the row
    dataset = load(tmp_path, images=images, labels=np.arange(20) % 2)
    assert dataset.train.images[0, :, :, 0].tolist() == [[0] * 4, [0] * 4, [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((40, 8, 8))}, "'images' are float64, not uint8"),
        ({"images": np.zeros((40, 8, 8, 4), np.uint8)}, "have the shape"),
        ({"images": np.zeros((40, 3, 8, 3), np.uint8)}, "have the shape"),
        ({"images": np.zeros((39, 8, 8), np.uint8)}, "do not fit together"),
        ({"labels": np.zeros((40, 2), np.int64)}, "'labels' are int64"),
        ({"labels": np.zeros(40)}, "'labels' are float64"),
        ({"labels": np.arange(40) % 3, "classes": ["a", "b"]}, "out of range"),
        ({"labels": np.array(["a", "c"] * 20), "classes": ["a", "b"]}, "no class: c"),
        ({"classes": ["a", "b", "c"]}, "no image in train"),
        ({"classes": ["a", "a"]}, "not distinct"),
        ({"labels": np.zeros(40, np.int64)}, "1 classes"),
        ({"labels": np.arange(40)}, "no image in train"),
        ({"validation_images": np.zeros((4, 9, 9), np.uint8)}, "no 'validation_labels'"),
        ({"validation_labels": np.arange(4) % 2}, "no 'validation_images'"),
        ({"test_labels": np.arange(4) % 2}, "no 'test_images'"),
        ({"val_images": np.zeros((4, 8, 8), np.uint8)}, "'val_images' is not known"),
        ({"classes": [b"a", b"b"]}, "'classes' are |S1 of shape"),
        ({"classes": [["a"], ["b"]]}, "'classes' are <U1 of shape"),
        ({"classes": "ab"}, "'classes' are <U2 of shape"),
        (
            {
                "classes": ["a", "b"],
                "validation_images": np.zeros((4, 8, 8), np.uint8),
                "validation_labels": [0.9, 1.7, 0.2, 1.2],
            },
            "'validation_labels' are float64",
        ),
        ({"labels": np.array([None, 1] * 20, object)}, "cannot be read"),
    ],
)
def test_unusable_arrays(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        load(tmp_path, **some(40) | changes)
    assert caught.value.why
    assert caught.value.fix


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has no 'images', only pictures"):
        load(tmp_path, pictures=np.zeros(3))


def forged(path: Path, shape: tuple[int, ...], descr: str = "|u1", content: bytes = b"") -> Path:
    """A file whose header promises something else than it holds."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", stream.getvalue() + content)
        archive.writestr("labels.npy", b"")
    return path


@pytest.mark.parametrize("shape", [(10**6, 10**6, 3), (5, 9, 9), (2**70, 2), (-1, 9, 9)])
def test_a_header_is_not_believed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = forged(tmp_path / "x.npz", shape, content=some(4)["images"].tobytes())
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset(str(path), side=8)
    assert " needs " in caught.value.why


@pytest.mark.parametrize(
    ("shape", "descr"),
    [((3 * 10**9,), "<U0"), ((3 * 10**9,), "|V0"), ((0, 10**24), "|u1"), ((0, 9, 9), "|u1")],
)
def test_what_takes_no_bytes_is_refused(tmp_path: Path, shape: tuple[int, ...], descr: str) -> None:
    """Numpy takes `<U0` for `<U1`: of three billions of them it would make 11 GiB."""
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset(str(forged(tmp_path / "x.npz", shape, descr)), side=8)
    assert "images.npy is empty" in caught.value.why


@pytest.mark.filterwarnings("ignore")  # of headers by Python 2, and of what they quote
def test_mutants_are_refused_or_sound(tmp_path: Path) -> None:
    """Of each way that a zip can be packed, with the checksums right or not."""
    chance, path, refused = random.Random(0), tmp_path / "x.npz", 0
    packings = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    members = []
    for array in some(40).values():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array)
        members.append(stream.getvalue())
    for number in range(400):
        images, labels = members
        if number % 2:
            images = changed(images[:128], chance) + images[128:]  # of its header
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", packings[number // 2 % 4]) as archive:
            archive.writestr("images.npy", images)
            archive.writestr("labels.npy", labels)
        path.write_bytes(whole.getvalue() if number % 2 else changed(whole.getvalue(), chance))
        with contextlib.suppress(DataError):
            load_dataset(str(path), side=8)
            continue
        refused += 1
    assert 200 < refused < 400


def changed(content: bytes, chance: random.Random) -> bytes:
    """With another byte somewhere, or a sign put in."""
    place, sign = chance.randrange(len(content)), chance.choice(b"([{',9-UO\n\\\x00\xff")
    return content[:place] + bytes((sign,)) + content[place + chance.randrange(2) :]


def test_more_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", **some(400))
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(DataError, match="half of the memory is 5,000"):
        load_dataset(str(tmp_path / "x.npz"), side=8)


def test_what_is_no_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **some(40))
    whole = (tmp_path / "whole.npz").read_bytes()
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], whole[300:]):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_dataset(str(tmp_path / "x.npz"), side=8)


CODE = """
import numpy as np

def good():
    labels = np.arange(40) % 2
    images = np.zeros((40, 8, 8), np.uint8)
    return {"images": images, "labels": labels, "classes": ["a", "b"],
            "test_images": images, "test_labels": labels}

def crash():
    return 1 / 0

def leave():
    raise SystemExit(3)

def pair():
    return np.zeros((40, 8, 8), np.uint8), np.zeros(40)

def more():
    return good() | {"label": 1}

def none():
    return good() | {"images": np.zeros((0, 8, 8), np.uint8)}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working folder."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return name


def test_a_function(module: str) -> None:
    source = f"{module}:good"
    dataset, test = load_dataset(source, side=8), load_test(source, side=8)
    assert dataset.classes == ("a", "b")
    assert dataset.name == f"{module}-good"
    assert test is not None
    assert len(test) == 40
    assert str(Path.cwd()) not in sys.path
    assert runs_code(source)
    assert absolute(source) == source


@pytest.mark.parametrize(
    ("function", "said", "why"),
    [
        ("crash", "crash failed", "ZeroDivisionError: division by zero"),
        ("leave", "leave failed", "SystemExit: 3"),
        ("absent", "there is no function 'absent'\n", "does not have it"),
        ("crush", "did you mean 'crash'", "does not have it"),
        ("pair", "returned no mapping", "tuple"),
        ("more", "'label' is not known", "the names are images"),
        ("none", "'images' are empty", "(0, 8, 8)"),
    ],
)
def test_a_function_that_fails(module: str, function: str, said: str, why: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"{module}:{function}", side=8)
    assert why in caught.value.why
    if function == "crash":
        assert caught.value.where == f"{Path.cwd() / module}.py, line 11"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_no_such_module(module: str) -> None:
    with pytest.raises(DataError, match="failed") as caught:
        load_dataset("no_such_module_at_all:make", side=8)
    assert "ModuleNotFoundError" in caught.value.why
    assert "'no_such_module_at_all' in this folder" in caught.value.why
    assert caught.value.where == str(Path.cwd())
    with pytest.raises(DataError) as caught:
        load_dataset(f"{module}x:make", side=8)
    assert caught.value.fix == f"--data {module}:make"


@pytest.mark.parametrize("line", ["import no_such_module_at_all", "def make(:"])
def test_a_module_that_cannot_be_imported(module: str, line: str) -> None:
    Path(f"{module}.py").write_text(f"import numpy\n{line}\n")
    with pytest.raises(DataError) as caught:
        load_dataset(f"{module}:make", side=8)
    assert caught.value.where == f"{Path.cwd() / module}.py, line 2"


def test_a_module_without_a_file() -> None:
    with pytest.raises(DataError, match="there is no function 'foo'"):
        load_dataset("sys:foo", side=8)


def test_an_ending_in_capitals(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **some(40))
    (tmp_path / "x.npz").rename(tmp_path / "X.NPZ")
    assert len(load_dataset(str(tmp_path / "X.NPZ"), side=8).train) == 32


@pytest.mark.parametrize("source", ["a", "a:", ":b", "a/b:c", "C:\\x", "a:b c", "a:b()", "a-b:c"])
def test_what_is_no_function(source: str) -> None:
    assert not is_function(source)
    with pytest.raises(DataError, match="no dataset"):
        load_dataset(source, side=8)


def test_digits() -> None:
    dataset, test = load_dataset("digits", side=8), load_test("digits", side=8)
    assert test is not None
    assert dataset.train.images.shape[1:] == (1, 8, 8)
    assert len(dataset.train) + len(dataset.validation) + len(test) == 1797
    assert dataset.train.images.max() == 255
    assert dataset.fingerprint == load_dataset("digits", side=64).fingerprint


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    for spec, why in ((None, "no package"), (found, "no .*digits.csv.gz")):
        monkeypatch.setattr(digits, "find_spec", {"sklearn": spec}.get)
        with pytest.raises(SetupError, match="scikit-learn") as caught:
            digits.load()
        assert re.search(why, caught.value.why)
