from __future__ import annotations

import torch

from nasfuse.architecture import Architecture
from nasfuse.latency import measure_latency
from nasfuse.network import build
from nasfuse.scaling import scale

CPU = torch.device("cpu")


def test_a_larger_network_takes_longer(architecture: Architecture) -> None:
    larger = scale(architecture, depth=2.0, width=4.0, resolution=4.0)
    small, large = (measure_latency(build(a), a, CPU) for a in (architecture, larger))
    assert 0 < small < large


def test_measuring_does_not_train(architecture: Architecture) -> None:
    network = build(architecture)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_latency(network, architecture, CPU)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
