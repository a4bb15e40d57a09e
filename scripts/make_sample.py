"""Make nasfuse/data/sample.npz: a small, class-balanced part of Fashion-MNIST.

Needs Debian's package `dataset-fashion-mnist`. Run again it gives the same images and, with the
same zlib, the same bytes: NumPy dates every member of the archive 1980-01-01.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from nasfuse.data.dataset import Split, divide, draw
from nasfuse.data.fashion_mnist import CLASSES, read

TARGET = Path(__file__).parents[1] / "nasfuse" / "data" / "sample.npz"
TRAIN, VALIDATION, TEST = 1000, 200, 200  # images of each class
SEED = 2017


def main() -> None:
    splits = make(TARGET)
    for name, split in splits.items():
        print(f"{name}: {len(split)} images, of each class {np.bincount(split.labels).tolist()}")
    content = TARGET.read_bytes()
    print(f"{TARGET.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def make(target: Path) -> dict[str, Split]:
    """Write the sample to `target` and return its splits by name."""
    splits = choose()
    arrays = {f"{name}_images": split.images for name, split in splits.items()}
    # a byte is enough for a label, and the loader widens it
    arrays |= {f"{name}_labels": split.labels.astype(np.uint8) for name, split in splits.items()}
    np.savez_compressed(target, allow_pickle=False, classes=np.array(CLASSES), **arrays)
    return splits


def choose() -> dict[str, Split]:
    """Train and validation from the training images, test from the test images."""
    whole, tests = read("train"), read("t10k")
    drawn, _ = divide(whole, draw(whole.labels, lambda _: TRAIN + VALIDATION, seed=SEED))
    validation, train = divide(drawn, draw(drawn.labels, lambda _: VALIDATION, seed=SEED))
    test, _ = divide(tests, draw(tests.labels, lambda _: TEST, seed=SEED))
    return {"train": train, "validation": validation, "test": test}


if __name__ == "__main__":
    main()
