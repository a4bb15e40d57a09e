"""A part of CIFAR-10 on which strategies can be compared in little time.

    python scripts/bench_strategies.py --data small_cifar:make --judge small_cifar:make ...

10,000 images to train on, 5,000 to choose by and all 10,000 test images to judge what was chosen.
Networks differ by more there than on Fashion-MNIST, so less is left to chance.
"""

from __future__ import annotations

from typing import Any

from nasfuse.data.load import load_dataset, load_test

TRAIN, VALIDATION, SIDE = 10_000, 5_000, 32


def make() -> dict[str, Any]:
    """As `--data module:function` wants it."""
    dataset, test = load_dataset("cifar10", side=SIDE, seed=0), load_test("cifar10", side=SIDE)
    assert test is not None  # CIFAR-10 has them
    return {
        "images": dataset.train.images[:TRAIN].transpose(0, 2, 3, 1),
        "labels": dataset.train.labels[:TRAIN],
        "validation_images": dataset.validation.images[:VALIDATION].transpose(0, 2, 3, 1),
        "validation_labels": dataset.validation.labels[:VALIDATION],
        "test_images": test.images.transpose(0, 2, 3, 1),
        "test_labels": test.labels,
        "classes": list(dataset.classes),
    }
