"""Recomputed dense layers: the same training step, in less memory."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nasfuse.ops.dense import Dense
from nasfuse.ops.recomputing import recompute


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        Dense(8, 8, stride=1, kernel=3, bottleneck=bottleneck, activation=nn.ReLU)
        for bottleneck in (4, None, 2)
    )
    return nn.Sequential(*layers)


def step(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers after one training step's forward and backward pass."""
    out = module(x)
    out.square().sum().backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"out": out.detach(), **found, **dict(module.named_buffers())}


def test_step_is_the_same_and_statistics_move_once() -> None:
    plain = network()
    saving = copy.deepcopy(plain)
    recompute(saving)
    x = torch.randn(4, 8, 6, 6)
    expected, found = step(plain, x), step(saving, x)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    counters = [value for name, value in found.items() if name.endswith("batches_tracked")]
    assert [int(count) for count in counters] == [1] * len(counters)


def test_less_is_kept_for_the_gradient() -> None:
    def kept(module: nn.Module) -> int:
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            module(torch.randn(4, 8, 6, 6, requires_grad=True))
        return sum(sizes)

    saving = network()
    recompute(saving)
    assert kept(saving) < kept(network()) / 4


class Around(nn.Module):
    """A block with something else in it, as a skip is."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = Dense(8, 8, stride=1, kernel=3, bottleneck=2, activation=nn.ReLU)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.transform(x))
        return out


def test_stages_are_cut_into_segments_whose_inputs_are_kept() -> None:
    torch.manual_seed(0)
    stages = [nn.Sequential(*(Around() for _ in range(9)), nn.Conv2d(8, 8, 1)) for _ in "ab"]
    plain = nn.Sequential(*stages)
    saving = copy.deepcopy(plain)
    recompute(saving)
    x = torch.randn(4, 8, 6, 6)
    expected, found = step(plain, x), step(saving, x)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    maps: list[bool] = []

    def pack(kept: Tensor) -> Tensor:
        maps.append(kept.shape == x.shape)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        saving(x)
    # in either stage those of three segments, and of the convolution that is no part of them
    assert sum(maps) == 2 * (3 + 1)


def test_evaluation_is_untouched() -> None:
    plain, saving = network().eval(), network().eval()
    recompute(saving)
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(plain(x), saving(x))
