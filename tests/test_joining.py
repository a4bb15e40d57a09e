from __future__ import annotations

import torch
from torch import nn

from nasfuse.joining import joined, parts


def test_parameters_become_views_that_keep_their_values_and_layouts() -> None:
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3, groups=5), nn.Conv2d(5, 7, 1), nn.Linear(7, 2)
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    before = [(p.detach().clone(), p.stride()) for p in parameters]
    vector = joined(parameters[::-1])
    for parameter, (value, stride) in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.stride() == stride
    first = parts(vector.mul_(2), parameters)[0]
    assert torch.equal(parameters[0], 2 * before[0][0])
    assert torch.equal(first, parameters[0])
    # matrices (outputs, k * k * inputs), row by row
    in_order = before[0][0].permute(0, 2, 3, 1).flatten()
    assert torch.equal(vector[-135:], 2 * in_order)
    others = parts(torch.zeros_like(vector), parameters)
    assert all(other.shape == p.shape for other, p in zip(others, parameters, strict=True))
