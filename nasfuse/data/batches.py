"""From images in memory to normalised batches on a device; no per-image Python work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nasfuse.data.dataset import Split
from nasfuse.recipe import Augmentation

STATISTICS_IMAGES = 10_000


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, for values between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure(split: Split) -> Normalisation:
    """Over at most 10,000 images, evenly spaced, so that equal data give equal numbers."""
    images = split.images[:: max(1, -(-len(split) // STATISTICS_IMAGES))]
    shades = np.zeros((images.shape[1], 256), np.int64)  # how often each value occurs
    for start in range(0, len(images), 256):  # large photos would not fit in wider numbers
        for channel, values in enumerate(images[start : start + 256].swapaxes(0, 1)):
            shades[channel] += np.bincount(values.ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = shades @ levels / shades.sum(1)
    std = np.sqrt(np.maximum(0, shades @ levels**2 / shades.sum(1) - mean**2))
    # a channel without contrast must not divide by zero
    return Normalisation(
        tuple(round(float(m), 4) for m in mean),
        tuple(round(max(float(s), 1e-3), 4) for s in std),
    )


@dataclass(frozen=True)
class Images:
    """One split on a device: uint8 images (n, channels, height, width) and int64 labels (n,)."""

    pixels: Tensor
    labels: Tensor
    normalisation: Normalisation
    resolution: int

    @classmethod
    def of(
        cls, split: Split, normalisation: Normalisation, *, resolution: int, device: torch.device
    ) -> Images:
        pixels, labels = _tensor(split.images, device), _tensor(split.labels, device)
        return cls(pixels, labels, normalisation, resolution)

    def __len__(self) -> int:
        return len(self.labels)

    def batch_count(self, size: int) -> int:
        """Batches of training in an epoch; a last one of a single image is left out."""
        return len(self) // size + (len(self) % size > 1)

    def batches(
        self, size: int, *, order: Tensor | None = None, vary: Augmentation | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images at the resolution, and labels, in batches of at most `size`.

        `order` are the indices to use, for training; a last batch of one image, which batch norm
        cannot train on, is then left out. The augmentation draws from torch's global generator.
        """
        whole = torch.arange(len(self)) if order is None else order
        whole = whole.to(self.pixels.device)  # at once: for each copy a GPU has to be waited for
        for indices in torch.split(whole, size):
            if len(indices) == 1 and order is not None:
                continue
            pixels = self.pixels.index_select(0, indices)  # several times as fast as [indices]
            varied = augmented(pixels, vary, self._mean) if vary else pixels
            yield self._normalised(varied), self.labels[indices]

    @cached_property
    def _mean(self) -> Tensor:
        """The shade of each channel that is nearest to 0 when it is normalised."""
        shades = np.rint(255 * np.array(self.normalisation.mean)).astype(np.uint8)
        return torch.from_numpy(shades).to(self.pixels.device)

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        """What a row of pixels (resolution * channels) is multiplied with, and what is added."""
        mean, std = np.array(self.normalisation.mean), np.array(self.normalisation.std)
        factor, offset = (
            torch.tensor(
                np.tile(line, self.resolution), dtype=torch.float32, device=self.pixels.device
            )
            for line in (1 / (255 * std), -mean / std)
        )
        return factor, offset

    def _normalised(self, pixels: Tensor) -> Tensor:
        side = self.resolution
        if pixels.shape[-2:] != (side, side):
            pixels = functional.interpolate(
                pixels.float(), (side, side), mode="bilinear", antialias=True
            )
        rows = channels_last(pixels).float().flatten(2)
        factor, offset = self._line
        images = rows.mul_(factor).add_(offset).view(len(rows), side, side, -1)
        return images.permute(0, 3, 1, 2)  # channels last in memory


def _tensor(array: NDArray[np.uint8] | NDArray[np.int64], device: torch.device) -> Tensor:
    """Arrays from Ray's object store are read-only and shared: torch warns, and nobody writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def channels_last(images: Tensor) -> Tensor:
    """Images (batch, channels, height, width) as (batch, height, width, channels)."""
    if images.is_contiguous(memory_format=torch.channels_last):
        return images.permute(0, 2, 3, 1)
    return torch.stack(images.unbind(1), 3)  # quicker than contiguous()


def augmented(images: Tensor, how: Augmentation, fill: Tensor) -> Tensor:
    """Images (batch, channels, side, side), each mirrored, moved and cut by chance.

    What they lose gets the shades of `fill` (channels).
    """
    side = images.shape[-1]
    if how.flip:
        images = flipped(images)
    if reach := round(how.shift * side):
        images = shifted(images, reach, fill)
    if size := round(how.cutout * side):
        images = cut(images, size, fill)
    return images


def flipped(images: Tensor) -> Tensor:
    """Half of the images, by chance, mirrored left to right."""
    count, device = len(images), images.device
    chosen = torch.rand(count, device=device) < 0.5
    # whole images are copied several times as fast as torch.where looks at each pixel
    places = torch.arange(count, device=device) + count * chosen
    return torch.cat([images, images.flip(3)]).index_select(0, places)


def cut(images: Tensor, size: int, fill: Tensor) -> Tensor:
    """A square of `size` pixels of each image gets the shades of `fill` (channels).

    Its centre lies anywhere.
    """
    side = images.shape[-1]
    place = torch.arange(side, device=images.device)
    down, right = torch.randint(0, side, (2, len(images), 1), device=images.device) - size // 2
    rows, columns = ((place >= start) & (place < start + size) for start in (down, right))
    gone = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(gone, fill[:, None, None], images)


def shifted(images: Tensor, reach: int, fill: Tensor) -> Tensor:
    """Each image moved by up to `reach` pixels in both directions.

    Its edges get the shades of `fill` (channels).
    """
    batch, channels, side, _ = images.shape
    long, row, inside = side + 2 * reach, side * channels, slice(reach, reach + side)
    padded = fill.repeat(long).expand(batch, long, -1).clone(memory_format=torch.contiguous_format)
    lines = slice(reach * channels, reach * channels + row)
    padded[:, inside, lines] = channels_last(images).flatten(2)
    down, right = torch.randint(0, 2 * reach + 1, (2, batch, 1), device=images.device)
    # wherever a pixel lies, a row of an image can begin there: rows are copied as wholes
    starts = padded.numel() // channels - side + 1
    begins = padded.as_strided((starts, row), (channels, 1))
    above = torch.arange(batch, device=images.device)[:, None] * long + down
    first = (above + torch.arange(side, device=images.device)) * long + right
    moved = begins.index_select(0, first.flatten())
    return moved.view(batch, side, side, channels).permute(0, 3, 1, 2)


def subset(split: Split, share: float, seed: int) -> Split:
    """A share of the images, drawn by the seed, every class in its proportion."""
    if share >= 1:
        return split
    generator = np.random.default_rng(seed)
    kept = [
        generator.permutation(members)[: max(2, round(share * len(members)))]
        for members in (np.flatnonzero(split.labels == c) for c in np.unique(split.labels))
    ]
    chosen = np.sort(np.concatenate(kept))
    return Split(split.images[chosen], split.labels[chosen])
