"""Agreement: on which images networks are right, and what the choice of images leaves to chance.

Trainings with other seeds show how much chance there is in a training. All are judged by the same
images, though, and other images of the same kind would give another difference: the more networks
disagree on them, the more so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean


def packed(right: bytes) -> str:
    """A bit an image, as text."""
    return base64.b64encode(right).decode()


@dataclass(frozen=True)
class Judged:
    """Trainings of one network: accuracies on the same `images`, and on which it was `right`.

    `right` is what `packed` made of bits, None of a training that does not have it.
    """

    accuracies: tuple[float, ...]
    right: tuple[str | None, ...]
    images: int

    @cached_property
    def bits(self) -> list[int] | None:
        """A number a training whose ones are right answers; None where one is not known."""
        found = [_number(text, self.images) for text in self.right]
        known = [bits for bits in found if bits is not None]
        return known if len(known) == len(found) else None

    def scatter(self, other: Judged) -> float:
        """The variance, over draws of the images, of the difference between the mean accuracies.

        Of two trainings with other seeds, the products of what they are right on say how often
        both networks are right on an image whatever the seed, so that chance in trainings is not
        counted once more. Where that is not known, networks are taken to have nothing in common.
        """
        one, two = fmean(self.accuracies), fmean(other.accuracies)
        ours, theirs = self.bits, other.bits
        if ours is None or theirs is None or min(len(ours), len(theirs)) < 2:
            return (one * (1 - one) + two * (1 - two)) / self.images
        squares = _together(ours, ours) + _together(theirs, theirs) - 2 * _together(ours, theirs)
        return max(0.0, squares / self.images - (one - two) ** 2) / self.images


def _number(text: str | None, images: int) -> int | None:
    try:
        content = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(content) if len(content) == -(-images // 8) else None


def _together(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """On how many images two trainings are both right, the mean over those of different seeds."""
    return fmean(both.bit_count() for both in _pairs(ours, theirs))


def _pairs(ours: Sequence[int], theirs: Sequence[int]) -> Iterator[int]:
    for i, one in enumerate(ours):
        yield from (one & other for j, other in enumerate(theirs) if i != j)
