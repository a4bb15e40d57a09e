"""Batches from images in memory or in a file: statistics, and the resolution of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasfuse.data.batches import Images, Normalisation, measure, shifted
from nasfuse.data.dataset import Split
from nasfuse.recipe import Augmentation

CPU = torch.device("cpu")


def test_statistics_are_those_of_every_value() -> None:
    images = np.random.default_rng(0).integers(0, 200, (300, 3, 5, 7), np.uint8)
    images[:, 2] = 255
    found = measure(Split(images, np.zeros(300, np.int64)))
    values = images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert found.mean == pytest.approx(values.mean(1), abs=1e-4)
    assert found.std[:2] == pytest.approx(values.std(1)[:2], abs=1e-4)
    assert found.std[2] == 0.001, "a channel without contrast must not divide by zero"


@pytest.mark.parametrize("resolution", [16, 24, 64, 96])
def test_the_resolution_follows_the_network_and_is_smooth(resolution: int) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    split = Split(np.stack([board[None]] * 4), np.arange(4) % 2)
    images = Images.of(split, Normalisation((0.0,), (1.0,)), resolution=resolution, device=CPU)
    (batch, labels), *_ = images.batches(4)
    assert batch.shape == (4, 1, resolution, resolution)
    assert labels.tolist() == [0, 1, 0, 1]
    if resolution < 64:  # without antialiasing a chequerboard would stay black and white
        assert (batch[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.15


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("resolution", [8, 12])
def test_batches_are_what_the_normalisation_says(channels: int, resolution: int) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, channels, 12, 12), dtype=np.uint8)
    how = Normalisation((0.1, 0.5, 0.7)[:channels], (0.2, 0.4, 0.05)[:channels])
    images = Images.of(Split(pixels, np.arange(6)), how, resolution=resolution, device=CPU)
    [(batch, _)] = images.batches(6)
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (how.mean, how.std))
    wanted = (torch.from_numpy(pixels) / 255 - mean) / std
    side = (resolution, resolution)
    wanted = torch.nn.functional.interpolate(wanted, side, mode="bilinear", antialias=True)
    assert torch.allclose(batch, wanted, atol=1e-5)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_shifted_images_are_windows_of_padded_ones(channels: int) -> None:
    images, fill = torch.rand(40, channels, 6, 6), torch.rand(channels)
    padded = fill.view(-1, 1, 1).repeat(40, 1, 10, 10)
    padded[:, :, 2:-2, 2:-2] = images
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1)  # (40, channels, 5, 5, 6, 6)
    torch.manual_seed(1)
    down, right = torch.randint(0, 5, (2, 40))
    torch.manual_seed(1)
    moved = shifted(images, 2, fill)
    assert torch.equal(moved, windows[torch.arange(40), :, down, right])
    assert moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "how", [Augmentation(flip=False, shift=0, cutout=0.5), Augmentation(shift=0.25)]
)
def test_what_is_cut_out_or_moved_in_is_the_mean(how: Augmentation) -> None:
    split = Split(np.full((40, 3, 12, 12), 255, np.uint8), np.arange(40))
    normalisation = Normalisation((0.1, 0.5, 0.7), (0.2, 0.4, 0.5))
    images = Images.of(split, normalisation, resolution=12, device=CPU)
    [(batch, _)] = images.batches(40, order=torch.arange(40), vary=how)
    [(plain, _)] = images.batches(40)
    lost = batch != plain
    assert 0 < lost.float().mean() < 0.5
    assert torch.equal(lost[:, 0], lost[:, 2]), "all channels of a pixel are lost together"
    assert batch[lost].abs().max() < 0.51 / 255 / 0.2, "as near to 0 as whole numbers come"
    assert batch.is_contiguous(memory_format=torch.channels_last)


class Copies(TorchFunctionMode):
    """Counts what is copied from main memory to a device, for which a GPU is waited for."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.count += func in {Tensor.to, Tensor.new_tensor, torch.tensor}
        return func(*args, **(kwargs or {}))


def test_batches_on_a_device_copy_the_order_once() -> None:
    pixels = torch.zeros(24, 3, 8, 8, dtype=torch.uint8, device="meta")
    images = Images(pixels, pixels[:, 0, 0, 0].long(), Normalisation((0.5,) * 3, (0.2,) * 3), 8)
    with Copies() as copies:
        assert len(list(images.batches(4, order=torch.arange(24)))) == 6
        assert copies.count == 3, "the order, a factor and an offset"
        assert len(list(images.batches(4))) == 6
        assert copies.count == 4


def test_images_that_were_judged_by_can_be_trained_on() -> None:
    split = Split(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4))
    images = Images.of(split, Normalisation((0.5,), (0.25,)), resolution=8, device=CPU)
    with torch.inference_mode():
        [(judged, _)] = images.batches(4)
    [(batch, _)] = images.batches(4, order=torch.arange(4))
    weight = torch.ones(1, 1, 3, 3, requires_grad=True)
    torch.nn.functional.conv2d(batch, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(batch, judged)


def test_mapped_images_give_the_batches_of_those_in_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (10, 3, 8, 8), np.uint8)
    (tmp_path / "pixels").write_bytes(b"12345" + pixels.tobytes())
    labels = np.arange(6)
    mapped = Split.mapped((tmp_path / "pixels", 5 + 2 * 192), (6, 3, 8, 8), labels)
    splits = [mapped, Split(pixels[2:8], labels)]
    found = [Images.of(s, measure(s), resolution=6, device=CPU).batches(4) for s in splits]
    for (one, _), (other, _) in zip(*found, strict=True):
        assert torch.equal(one, other)
