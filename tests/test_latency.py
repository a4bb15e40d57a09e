from __future__ import annotations

import pytest
import torch

from nasfuse.architecture import Architecture
from nasfuse.data.batches import Images, measure
from nasfuse.data.dataset import Dataset
from nasfuse.latency import measure_latency
from nasfuse.network import build
from nasfuse.scaling import scale
from nasfuse.training import answers

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


@pytest.mark.parametrize("before", [True, False])
def test_float32_is_not_rounded_on_a_gpu(
    architecture: Architecture, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    rounded: list[bool] = []
    network = build(architecture)
    network.register_forward_hook(lambda *_: rounded.append(torch.backends.cudnn.allow_tf32))
    measure_latency(network, architecture, CPU)
    side = architecture.resolution
    images = Images.of(dataset.validation, measure(dataset.train), resolution=side, device=CPU)
    for _ in answers(network, images, precise=True):
        assert torch.backends.cudnn.allow_tf32 == before
    assert set(rounded) == {False}
    for _ in answers(network, images):
        assert rounded[-1] == before
