"""From what the user calls a dataset to images in memory."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nasfuse.data import arrays, cifar, digits, fashion_mnist, folder
from nasfuse.data.dataset import Dataset, Split, assemble, check_test
from nasfuse.errors import DataError
from nasfuse.names import nearest


def load_dataset(source: str, *, side: int, seed: int = 0, skip_bad: int = 0) -> Dataset:
    """Training and validation images, never test images, of what the user calls a data set.

    That is a name, which goes before a folder of that name (still to be had as `./name`); a folder
    of images; a `.npz` file; the archive of a named set; or module:function, which is then called.
    `side` is that of a folder's images in pixels, of which up to `skip_bad` may be unreadable;
    `seed` splits what has no validation images of its own. Raises DataError for an unknown source
    and for images that cannot be used.
    """
    if source in _NAMED:
        return _NAMED[source].dataset()
    if arrays.is_function(source):
        return arrays.load(source, seed=seed)
    path = _existing(source)
    if _holds_arrays(path):
        return arrays.load(str(path), seed=seed)
    if name := cifar.archive_name(path):
        return cifar.load(name, path)
    return folder.load(path, side=side, seed=seed, skip_bad=skip_bad)


def load_test(source: str, *, side: int, skip_bad: int = 0) -> Split | None:
    """The test images, for use once, when the search is over; None where there are none.

    They are never drawn from a folder or a file, but lie in it by themselves. Takes arguments of
    `load_dataset`, and raises DataError as it does.
    """
    if source in _NAMED:
        return _NAMED[source].test()
    if arrays.is_function(source):
        return arrays.load_test(source)
    path = _existing(source)
    if _holds_arrays(path):
        return arrays.load_test(str(path))
    if name := cifar.archive_name(path):
        return cifar.load_test(name, path)
    return folder.load_test(path, side=side, skip_bad=skip_bad)


def require_test(source: str, dataset: Dataset, *, side: int, skip_bad: int = 0) -> None:
    """Whether networks trained on a dataset can be tested on its test images, where it has some.

    Raises DataError as `load_test` does, and for images or labels that do not fit.
    """
    if source not in _NAMED:  # those are known to
        test = load_test(source, side=side, skip_bad=skip_bad)
        if test is not None:
            check_test(dataset, test)


def is_folder(source: str) -> bool:
    """Whether this is a folder of images. Raises DataError if it is nothing at all."""
    return source not in _NAMED and not arrays.is_function(source) and _existing(source).is_dir()


def runs_code(source: str) -> bool:
    """Whether loading this calls a function of the user's."""
    return source not in _NAMED and arrays.is_function(source)


def absolute(source: str) -> str:
    """A folder or file by its whole path, to be found from elsewhere; all else as it is."""
    if source in _NAMED or arrays.is_function(source):
        return source
    return str(Path(source).expanduser().resolve())


def _holds_arrays(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


@folder.permitted()
def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    folder.require_text(path.absolute())
    if path.exists():
        return path
    near = _near(path)
    raise DataError(
        f"there is no dataset '{source}'" + (f"; did you mean '{near}'?" if near else ""),
        where="--data",
        why=f"it is no folder, no file and no module:function; the names are {', '.join(_NAMED)}",
        fix=f"--data {shlex.quote(near or 'sample')}",
    )


def _near(path: Path) -> str | None:
    """What was probably meant: a folder or file of arrays beside it, or a set with a name."""
    meant = {name: name for name in _NAMED} if path.name == str(path) else {}
    with suppress(DataError):  # there is no such place, or nobody may look
        beside = folder.entries(path.parent)
        meant |= {p.name: str(p) for p in beside if p.is_dir() or _holds_arrays(p)}
    near = nearest(path.name, meant)
    return near and meant[near]


def _sample() -> Dataset:
    train, validation = _sample_split("train"), _sample_split("validation")
    return assemble("sample", fashion_mnist.CLASSES, train=train, validation=validation)


def _sample_test() -> Split:
    return _sample_split("test")


def _sample_split(name: Literal["train", "validation", "test"]) -> Split:
    """Written by scripts/make_sample.py."""
    bundled = resources.files("nasfuse.data") / "sample.npz"
    with bundled.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return Split(file[f"{name}_images"], file[f"{name}_labels"].astype(np.int64))


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
    "cifar10": _Named(
        "50,000 photos in 10 classes, 32x32, colour; downloaded once (170 MB)",
        lambda: cifar.load("cifar10"),
        lambda: cifar.load_test("cifar10"),
    ),
    "cifar100": _Named(
        "50,000 photos in 100 classes, 32x32, colour; downloaded once (169 MB)",
        lambda: cifar.load("cifar100"),
        lambda: cifar.load_test("cifar100"),
    ),
    "digits": _Named(
        "1,442 handwritten digits in 10 classes, 8x8, grey; comes with scikit-learn",
        digits.load,
        digits.load_test,
    ),
}
DATASETS: dict[str, str] = {name: named.description for name, named in _NAMED.items()}
