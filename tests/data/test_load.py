"""Names of datasets, and the checks that every dataset passes through."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nasfuse.data.dataset import Split, assemble, divide, draw, fingerprint
from nasfuse.data.load import DATASETS, load_dataset, load_test
from nasfuse.errors import DataError


def split(labels: list[int], *, shape: tuple[int, ...] = (1, 4, 4)) -> Split:
    images = np.arange(len(labels) * int(np.prod(shape)), dtype=np.uint8)
    return Split(images.reshape(len(labels), *shape), np.array(labels, np.int64))


def test_names_are_described() -> None:
    assert list(DATASETS) == ["sample", "fashion-mnist", "cifar10", "cifar100", "digits"]
    assert all(DATASETS.values())


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("smaple", "sample"),
        ("FashionMNIST", "fashion-mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("CIFAR-10", "cifar10"),
        ("cifar-100", "cifar100"),
        ("digit", "digits"),
    ],
)
def test_near_match(source: str, meant: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(source, side=8)
    assert f"did you mean '{meant}'" in caught.value.what
    assert caught.value.fix == f"--data {meant}"


def test_a_folder_beside_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    (tmp_path / "scans.npz").touch()
    for source, meant in (
        ("my_photso", "my photos"),
        (f"{tmp_path}/my phots/", f"{tmp_path}/my photos"),
        ("scan.npz", "scans.npz"),
        ("digit", "digits"),
    ):
        with pytest.raises(DataError) as caught:
            load_dataset(source, side=8)
        assert f"did you mean '{meant}'" in caught.value.what
        assert shlex.split(caught.value.fix) == ["--data", meant]


@pytest.mark.parametrize("load", [load_dataset, load_test])
def test_unknown_names_list_the_known(load: object) -> None:
    assert callable(load)
    with pytest.raises(DataError) as caught:
        load("/nowhere/at/all", side=8)
    assert "did you mean" not in caught.value.what
    assert all(name in caught.value.why for name in DATASETS)


def test_name_goes_before_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    assert load_dataset("sample", side=8).name == "sample"
    with pytest.raises(DataError, match="no classes"):
        load_dataset("./sample", side=8)


def test_fingerprint_sees_every_part() -> None:
    one, other = split([0, 1, 0, 1]), split([0, 1])
    marks = {
        fingerprint(("a", "b"), train=one, validation=other),
        fingerprint(("a", "c"), train=one, validation=other),
        fingerprint(("a", "b"), train=other, validation=one),
        fingerprint(("a", "b"), train=one, validation=split([1, 0])),
        fingerprint(("a", "b"), train=split([0, 1, 0, 1], shape=(4, 2, 2)), validation=other),
    }
    assert len(marks) == 5
    assert all(len(mark) == 12 for mark in marks)
    assert fingerprint(("a", "b"), train=one, validation=other) in marks


@pytest.mark.parametrize(
    ("classes", "train", "validation", "said"),
    [
        (("a",), split([0, 0]), split([0]), "1 classes"),
        (("a", "b"), split([0, 0]), split([0, 1]), "no image in train"),
        (("a", "b"), split([0, 1]), split([1]), "no image in validation"),
        (("a", "b"), split([0, 2]), split([0, 1]), "out of range"),
        (("a", "b"), split([0, -1]), split([0, 1]), "out of range"),
        (("a", "b"), split([0, 1]), split([0, 1], shape=(3, 4, 4)), "differ in shape"),
        (("a", "b"), split([0, 1], shape=(4,)), split([0, 1]), "do not fit"),
    ],
)
def test_unusable(classes: tuple[str, ...], train: Split, validation: Split, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        assemble("x", classes, train=train, validation=validation)
    assert caught.value.why
    assert caught.value.fix


def test_draw_is_balanced_and_divide_is_complete() -> None:
    labels: NDArray[np.int64] = np.repeat(np.arange(3), [5, 10, 20])
    indices = draw(labels, lambda size: size // 5, seed=3)
    assert np.bincount(labels[indices]).tolist() == [1, 2, 4]
    assert np.array_equal(indices, draw(labels, lambda size: size // 5, seed=3))
    assert not np.array_equal(indices, draw(labels, lambda size: size // 5, seed=4))
    drawn, rest = divide(split(labels.tolist()), indices)
    assert (len(drawn), len(rest)) == (7, 28)
    together = np.concatenate([drawn.images, rest.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, split(labels.tolist()).images))
