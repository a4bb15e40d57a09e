"""scikit-learn's handwritten digits (Alpaydin & Kaynak 1998): 1,797 images of 8 x 8 pixels."""

from __future__ import annotations

import numpy as np

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.errors import SetupError

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
    try:
        from sklearn.datasets import load_digits  # slow to import, and needed for nothing else
    except ImportError as error:
        raise SetupError(
            "the digits are scikit-learn's, which is not installed",
            where="--data digits",
            why=str(error),
            fix="pip install scikit-learn   or --data sample",
        ) from error
    found = load_digits()
    pixels = np.round(found.images * (255 / BRIGHTEST)).astype(np.uint8)
    whole = Split(pixels[:, None], found.target.astype(np.int64))
    test, rest = divide(whole, draw(whole.labels, lambda size: size // 5, seed=0))
    return rest, test
