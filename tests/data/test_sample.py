"""The bundled sample."""

from __future__ import annotations

import runpy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from nasfuse.data.fashion_mnist import CLASSES, DEBIAN
from nasfuse.data.load import load_dataset, load_test

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_sample.py"
DATA = resources.files("nasfuse.data")


def test_counts_and_balance() -> None:
    sample, test = load_dataset("sample", side=28), load_test("sample", side=28)
    assert test is not None
    assert sample.classes == CLASSES
    assert sample.channels == 1
    for split, each in ((sample.train, 1000), (sample.validation, 200), (test, 200)):
        assert split.images.shape == (10 * each, 1, 28, 28)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert np.bincount(split.labels).tolist() == [each] * 10


def test_no_image_is_in_two_splits() -> None:
    sample, test = load_dataset("sample", side=28), load_test("sample", side=28)
    assert test is not None
    splits = (sample.train, sample.validation, test)
    distinct = {image.tobytes() for split in splits for image in split.images}
    assert len(distinct) == sum(len(split) for split in splits)


def test_the_first_images_are_of_all_classes() -> None:
    sample = load_dataset("sample", side=28)
    assert len(np.unique(sample.train.labels[:100])) == 10


def test_fingerprint_is_that_of_the_bundled_file() -> None:
    assert load_dataset("sample", side=28).fingerprint == "f09e321d5c40"
    assert load_dataset("sample", side=64, seed=5).fingerprint == "f09e321d5c40"


def test_size_and_licence() -> None:
    assert len((DATA / "sample.npz").read_bytes()) <= 7_000_000
    licence = (DATA / "sample-LICENSE").read_text()
    assert "The MIT License (MIT)" in licence
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in licence


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
@pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the sources")
def test_script_is_deterministic(tmp_path: Path) -> None:
    make = runpy.run_path(str(SCRIPT))["make"]
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    make(one)
    make(other)
    assert one.read_bytes() == other.read_bytes()
    # another zlib may pack the same images into other bytes
    with np.load(one) as made, (DATA / "sample.npz").open("rb") as stream, np.load(stream) as kept:
        assert list(made) == list(kept)
        assert all(np.array_equal(made[name], kept[name]) for name in made)
