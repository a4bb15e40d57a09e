"""What the choice of images leaves to chance, where it is known because it was made up."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nasfuse.agreement import Judged, packed

IMAGES, REPEATS = 500, 3
Chances = NDArray[np.float64]  # of each image to be answered rightly


def judged(chances: Chances, generator: np.random.Generator) -> Judged:
    """Trainings that are right on each image by its chance, each for itself."""
    answers = generator.random((REPEATS, len(chances))) < chances
    right = tuple(packed(np.packbits(row).tobytes()) for row in answers)
    return Judged(tuple(map(float, answers.mean(axis=1))), right, len(chances))


def kinds(generator: np.random.Generator, images: int) -> tuple[Chances, Chances]:
    """Two networks that are good at partly different images."""
    kind = generator.integers(0, 4, images)
    one = np.array([0.99, 0.95, 0.4, 0.9])[kind]
    return one, np.array([0.99, 0.8, 0.6, 0.9])[kind]


def test_the_variance_is_that_over_draws_of_images() -> None:
    generator = np.random.default_rng(0)
    one, two = kinds(generator, 1_000_000)
    expected = float((one - two).var()) / IMAGES
    found = []
    for _ in range(400):
        first, second = (judged(c, generator) for c in kinds(generator, IMAGES))
        assert first.scatter(second) == pytest.approx(second.scatter(first))
        both = kinds(generator, IMAGES)
        found.append(judged(both[0], generator).scatter(judged(both[1], generator)))
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


def test_networks_that_answer_alike_leave_nothing_to_chance() -> None:
    generator = np.random.default_rng(0)
    chances, _ = kinds(generator, 100_000)
    one, two = judged(chances, generator), judged(chances, generator)
    apart = Judged(one.accuracies, (None,) * REPEATS, one.images)
    assert one.scatter(two) < 0.03 * apart.scatter(two)


@pytest.mark.parametrize("lost", [None, "", "?", "AAAA"])
def test_where_answers_are_lost_networks_have_nothing_in_common(lost: str | None) -> None:
    one = judged(np.full(IMAGES, 0.9), np.random.default_rng(0))
    other = Judged((0.8, 0.8), (lost, one.right[0]), IMAGES)
    mean = float(np.mean(one.accuracies))
    assert one.scatter(other) == pytest.approx((mean * (1 - mean) + 0.8 * 0.2) / IMAGES)
