"""Maps and gradients lie channels last, and are the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasfuse.layouts import keep_channels_last
from nasfuse.network import build
from nasfuse.ops.layers import Mean
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space
from nasfuse.training import autocast

LAST = torch.channels_last
SPACES = ["default", "densenet", "mobile", "cifar"]


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone(memory_format=LAST).requires_grad_()
    out = module(x)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], weights)]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 1, 2, 2), (2, 6, 1, 1)])
def test_means_and_their_gradients_are_the_same(shape: tuple[int, ...]) -> None:
    x, module = torch.randn(shape), Mean()
    straight = gradients(module, x)
    keep_channels_last(module)
    found = gradients(module, x)
    assert torch.equal(found[0], straight[0])
    assert torch.allclose(found[1], straight[1], atol=1e-7)
    assert found[1].stride(1) == 1


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_of_one_channel_become_maps_that_lie_channels_last(stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 6, 1, stride=stride).to(memory_format=LAST)  # type: ignore[call-overload]
    x = torch.randn(4, 1, 8, 8)
    straight = gradients(conv, x)
    keep_channels_last(conv)
    for one, other in zip(straight, gradients(conv, x), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert conv(x).is_contiguous(memory_format=LAST)


def innermost(x: Tensor) -> bool:
    """Whether channels are, or there is nothing to tell by."""
    return x.ndim != 4 or 1 in (x.shape[1], x.shape[2] * x.shape[3]) or x.stride(1) == 1


@pytest.mark.parametrize("name", SPACES)
def test_nothing_in_sampled_networks_lies_otherwise(name: str) -> None:
    space, wrong = load_space(name).for_images(channels=1, classes=4), set()

    def look(module: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor):
            if not innermost(out):
                wrong.add((type(module).__name__, "map"))
            if out.requires_grad and not any(module.children()):
                out.register_hook(lambda found: note(module, found))  # type: ignore[no-untyped-call]

    def note(module: nn.Module, gradient: Tensor) -> None:
        if not innermost(gradient):
            wrong.add((type(module).__name__, "gradient"))

    for seed in range(6):
        candidate = space.sample(seed)
        found = fit_to_budget(candidate.architecture, candidate.scaling, 2_000_000)
        network = build(found).to(memory_format=LAST)  # type: ignore[call-overload]
        keep_channels_last(network)
        for module in network.modules():
            module.register_forward_hook(look)
        side = found.resolution
        x = torch.randn(2, side, side, 1).permute(0, 3, 1, 2)
        with autocast(torch.device("cpu")):
            out = network(x)
        out.float().logsumexp(1).sum().backward()
    assert not wrong
