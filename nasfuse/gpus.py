"""GPUs: how many of this machine's torch can use, and how exactly they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def usable_gpus() -> int:
    """How many; none where the driver is too old for torch's CUDA, though torch counts them."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextmanager
def whole_float32() -> Iterator[None]:
    """Convolutions of float32 in float32: by itself cuDNN rounds what goes into them to 10 bits.

    Processors do so anyway, and so do matrix products of a GPU.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
