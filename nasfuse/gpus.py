"""GPUs: how many of this machine's torch can use."""

from __future__ import annotations

import torch


def usable_gpus() -> int:
    """How many; none where the driver is too old for torch's CUDA, though torch counts them."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
