"""scikit-learn's handwritten digits (Alpaydin & Kaynak 1998): 1,797 images of 8 x 8 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.errors import SetupError

SIDE = 8
BRIGHTEST = 16  # of scikit-learn's values


def load() -> Dataset:
    """A fifth is for the test and a fifth of the rest for validation. Raises SetupError."""
    rest, _ = _divided()
    validation, train = divide(rest, draw(rest.labels, lambda size: size // 5, seed=1))
    return assemble("digits", tuple("0123456789"), train=train, validation=validation)


def load_test() -> Split:
    """Raises SetupError as `load` does."""
    return _divided()[1]


def _divided() -> tuple[Split, Split]:
    """All but the test images, and the test images."""
    table = np.loadtxt(_found(), delimiter=",", dtype=np.uint8)
    pixels = np.round(table[:, :-1].reshape(-1, 1, SIDE, SIDE) * (255 / BRIGHTEST))
    whole = Split(pixels.astype(np.uint8), table[:, -1].astype(np.int64))
    test, rest = divide(whole, draw(whole.labels, lambda size: size // 5, seed=0))
    return rest, test


def _found() -> Path:
    """scikit-learn's table of them, found without its import, which takes two seconds."""
    package = find_spec("sklearn")
    why = "there is no package sklearn"
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
        why = f"there is no {path}"
    raise SetupError(
        "the digits are scikit-learn's, and it is not installed, or not as usual",
        where="--data digits",
        why=why,
        fix="pip install scikit-learn   or --data sample",
    )
