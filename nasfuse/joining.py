"""One vector of many tensors: one call then moves, averages or copies them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def joined(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A vector of all numbers, of which the parameters become views.

    Each keeps the order that its numbers have in memory, such as channels last.
    """
    sizes = [parameter.numel() for parameter in parameters]
    vector = torch.empty(sum(sizes), device=parameters[0].device)
    for parameter, part in zip(parameters, torch.split(vector, sizes), strict=True):
        view = part.as_strided(parameter.shape, parameter.stride())
        parameter.data = view.copy_(parameter)
    return vector


def parts(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of another vector, where and as the joined parameters lie in theirs."""
    return [vector.as_strided(p.shape, p.stride(), p.storage_offset()) for p in parameters]
