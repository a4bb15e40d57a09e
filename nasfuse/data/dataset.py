"""Images and labels in memory, checked, with a fingerprint by which to recognise them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasfuse.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """uint8 images of shape (n, channels, height, width) and their int64 labels (n,).

    `file` is where images are mapped from, with the first one's place in bytes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    file: tuple[Path, int] | None = None

    @classmethod
    def mapped(
        cls, file: tuple[Path, int], shape: tuple[int, ...], labels: NDArray[np.int64]
    ) -> Split:
        """Images that lie in a file, from a byte on, and are read when they are used."""
        path, offset = file
        return cls(np.memmap(path, np.uint8, "r", offset, shape), labels, file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process of this machine maps the file again, instead of getting a copy."""
        if self.file is None:
            return Split, (self.images, self.labels)
        return Split.mapped, (self.file, self.images.shape, self.labels)

    def in_memory(self) -> Split:
        """The same without the file, for other machines."""
        return Split(np.array(self.images), self.labels)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a search may see.

    There is no test split in here: what a search can see, it sooner or later chooses by, and the
    number reported at the end would be too good. `load.load_test` gives it, once, at the end.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    fingerprint: str

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    def in_memory(self) -> Dataset:
        """The same without files of this machine."""
        train, validation = self.train.in_memory(), self.validation.in_memory()
        return replace(self, train=train, validation=validation)


def assemble(name: str, classes: tuple[str, ...], *, train: Split, validation: Split) -> Dataset:
    """A checked dataset with its fingerprint. Raises DataError as `check` does."""
    digest = fingerprint(classes, train=train, validation=validation)
    dataset = Dataset(name, classes, train, validation, digest)
    check(dataset)
    return dataset


def fingerprint(classes: tuple[str, ...], *, train: Split, validation: Split) -> str:
    """12 hex digits that change with any class name, pixel, label or shape."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in (train, validation):
        for array in (split.images, split.labels.astype("<i8")):
            digest.update(json.dumps(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def check(dataset: Dataset) -> None:
    """Raises DataError if a network could not be trained and scored on it."""
    if len(dataset.classes) < 2:
        raise _unusable(
            dataset, f"there are {len(dataset.classes)} classes", "at least 2 are needed"
        )
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        _check_shapes(dataset, name, split)
        _check_range(dataset, name, split)
        _check_every_class(dataset, name, split)
    _check_alike(dataset, "validation", dataset.validation)


def check_test(dataset: Dataset, test: Split) -> None:
    """Raises DataError where networks trained on the dataset could not be tested on these images.

    For before a training: nothing is learnt of them but their shapes and that labels are classes.
    """
    _check_shapes(dataset, "test", test)
    _check_range(dataset, "test", test)
    if not len(test):
        raise _unusable(dataset, "there are no test images", "0 are left in the test split")
    _check_alike(dataset, "test", test)


def _check_shapes(dataset: Dataset, name: str, split: Split) -> None:
    images, labels = split.images, split.labels
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise _unusable(
            dataset,
            f"images and labels of {name} do not fit together",
            f"images are {images.dtype} {images.shape} and labels {labels.shape}; they must be "
            "uint8 (n, channels, height, width) and (n,)",
        )


def _check_alike(dataset: Dataset, name: str, split: Split) -> None:
    shapes = dataset.train.images.shape[1:], split.images.shape[1:]
    if shapes[0] != shapes[1]:
        raise _unusable(
            dataset,
            f"images of train and {name} differ in shape",
            f"(channels, height, width) is {shapes[0]} in train and {shapes[1]} in {name}",
        )


def _check_range(dataset: Dataset, name: str, split: Split) -> None:
    count = len(dataset.classes)
    outside = split.labels[(split.labels < 0) | (split.labels >= count)]
    if len(outside):
        raise _unusable(
            dataset,
            f"{len(outside)} labels of {name} are out of range",
            f"the first is {outside[0]}; {count} classes have labels 0 to {count - 1}",
        )


def _check_every_class(dataset: Dataset, name: str, split: Split) -> None:
    count = len(dataset.classes)
    empty = np.flatnonzero(np.bincount(split.labels, minlength=count) == 0)
    if len(empty):
        names = ", ".join(dataset.classes[label] for label in empty[:3])
        raise _unusable(
            dataset,
            f"{len(empty)} of {count} classes have no image in {name}",
            f"without images: {names}{', ...' if len(empty) > 3 else ''}",
        )


def _unusable(dataset: Dataset, what: str, why: str) -> DataError:
    return DataError(
        what, where=f"dataset '{dataset.name}'", why=why, fix="--data sample   is one that works"
    )


def draw(labels: NDArray[np.int64], count: Callable[[int], int], *, seed: int) -> NDArray[np.int64]:
    """Ascending indices of `count(size)` random members of each class of that size."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = [generator.choice(each, count(len(each)), replace=False) for each in members]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def divide(split: Split, indices: NDArray[np.int64]) -> tuple[Split, Split]:
    """The images at the indices, and all others, both in their order."""
    rest = np.delete(np.arange(len(split)), indices)
    return (
        Split(split.images[indices], split.labels[indices]),
        Split(split.images[rest], split.labels[rest]),
    )
