"""From what the user calls a dataset to images in memory."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nasfuse.data import fashion_mnist, folder
from nasfuse.data.dataset import Dataset, Split, assemble
from nasfuse.errors import DataError


def load_dataset(source: str, *, side: int, seed: int = 0) -> Dataset:
    """Training and validation images of a named set or of a folder, never its test images.

    A name goes before a folder of that name, which is still to be had as `./name`. `side` is that
    of a folder's images in pixels, `seed` splits a folder without a `val/`; named sets have their
    own. Raises DataError for an unknown source and for images that cannot be used.
    """
    if source in _NAMED:
        return _NAMED[source].dataset()
    return folder.load(_existing(source), side=side, seed=seed)


def load_test(source: str, *, side: int, seed: int = 0) -> Split | None:
    """The test images, for use once, when the search is over; None where a folder has none.

    Takes the arguments of `load_dataset`. Raises DataError as it does.
    """
    del seed  # test images are never drawn: they are a folder of their own, or there are none
    if source in _NAMED:
        return _NAMED[source].test()
    return folder.load_test(_existing(source), side=side)


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    near = difflib.get_close_matches(source.lower(), list(_NAMED), n=1)
    raise DataError(
        f"there is no dataset '{source}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        where="--data",
        why=f"it is no folder, and the names are {', '.join(_NAMED)}",
        fix=f"--data {near[0] if near else 'sample'}",
    )


def _sample() -> Dataset:
    train, validation = _sample_split("train"), _sample_split("validation")
    return assemble("sample", fashion_mnist.CLASSES, train=train, validation=validation)


def _sample_test() -> Split:
    return _sample_split("test")


def _sample_split(name: Literal["train", "validation", "test"]) -> Split:
    """Written by scripts/make_sample.py."""
    bundled = resources.files("nasfuse.data") / "sample.npz"
    with bundled.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return Split(arrays[f"{name}_images"], arrays[f"{name}_labels"].astype(np.int64))


class _Named(NamedTuple):
    description: str
    dataset: Callable[[], Dataset]
    test: Callable[[], Split]


_NAMED: dict[str, _Named] = {
    "sample": _Named(
        "12,000 images of Fashion-MNIST in 10 classes, 28x28, grey; comes with nasfuse",
        _sample,
        _sample_test,
    ),
    "fashion-mnist": _Named(
        "60,000 images of clothes in 10 classes, 28x28, grey; downloaded once (31 MB)",
        fashion_mnist.load,
        fashion_mnist.load_test,
    ),
}
DATASETS: dict[str, str] = {name: named.description for name, named in _NAMED.items()}
