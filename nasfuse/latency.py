"""How long a network takes for one image, measured."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from nasfuse.architecture import Architecture
from nasfuse.gpus import whole_float32

WARM_UP, RUNS = 5, 25


@torch.inference_mode()
@whole_float32()
def measure_latency(network: nn.Module, architecture: Architecture, device: torch.device) -> float:
    """Milliseconds for one image (batch 1, float32, eager), the median of 25 runs after 5 others.

    On a CPU it is that of the threads torch has now, in a search one; what else runs on the machine
    is part of it, so only latencies measured alike can be compared.
    """
    network.eval()
    side = architecture.resolution
    image = torch.zeros(1, architecture.channels, side, side, device=device)
    times = []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times[WARM_UP:]), 4)
