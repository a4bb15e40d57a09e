from __future__ import annotations

from typing import Any

import pytest
import torch

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.network import build, cost, thop_macs, torch_cost
from nasfuse.ops.layers import SameConvNorm
from nasfuse.plan import plan
from nasfuse.references import load_architecture
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space, space_names

SAMPLES = 50


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_formula_is_what_torch_and_thop_count(name: str) -> None:
    """Exactly, on sampled networks of every shipped space."""
    space, budget = load_space(name), 40_000_000 if name == "mobile" else 4_000_000
    for seed in range(SAMPLES):
        candidate = space.sample(seed)
        network = fit_to_budget(candidate.architecture, candidate.scaling, budget + seed)
        price = cost(network)
        assert (price.macs, price.params) == torch_cost(network, device="cpu")
        assert price.thop == thop_macs(network, device="cpu")


def test_shapes_of_the_plan_are_those_of_the_network(architecture: Architecture) -> None:
    network: Any = build(architecture).eval()
    seen: list[tuple[int, ...]] = []
    layers = [network.stem, *(block for stage in network.stages for block in stage), network.head]
    for layer in layers:
        layer.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    network(torch.zeros(1, 1, 16, 16))
    planned = [tuple(layer.shape) for layer in plan(architecture)]
    assert seen[:-1] == planned[:-1]
    assert seen[-1] == planned[-1][:1]


def test_dense_layers_see_what_came_before() -> None:
    """The l-th layer of a DenseNet stage takes k0 + k (l - 1) channels."""
    dense = parse_architecture(
        {
            "resolution": 8,
            "channels": 3,
            "classes": 10,
            "activation": "relu",
            "stem": {"width": 24, "kernel": 3, "stride": 1},
            "stages": [
                {
                    "depth": 4,
                    "stride": 1,
                    "block": {"kind": "dense", "kernel": 3, "bottleneck": 4},
                    "fusion": "concat",
                    "growth": 12,
                }
            ],
            "head": {"kind": "norm"},
        },
        where="",
    )
    network: Any = build(dense)
    inputs = [skip.transform.conv1.conv.in_channels for skip in network.stages[0]]
    assert inputs == [24 + 12 * layer for layer in range(4)]


def test_a_basic_residual_network_costs_what_is_published() -> None:
    """ResNet-20 for CIFAR-10 (He et al. 2016), with projections where shapes differ."""
    stages = [
        {
            "depth": 3,
            "stride": stride,
            "block": {"kind": "residual", "kernel": 3},
            "fusion": "add",
            "width": width,
        }
        for width, stride in ((16, 1), (32, 2), (64, 2))
    ]
    resnet20 = parse_architecture(
        {
            "resolution": 32,
            "channels": 3,
            "classes": 10,
            "activation": "relu",
            "stem": {"width": 16, "kernel": 3, "stride": 1},
            "stages": stages,
            "head": {"kind": "norm"},
        },
        where="",
    )
    # published (option A): 269,722 and 40,551,040; here the head has a batch norm of 64 channels
    # and two shortcuts are 1 x 1 convolutions with batch norm
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    projection_macs = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8
    price = cost(resnet20)
    assert price.params == 269_722 + 2 * 64 + projections
    assert price.macs == 40_551_040 + projection_macs


def test_counting_leaves_nothing_behind(architecture: Architecture) -> None:
    """thop puts buffers into what it measures, which would then be in every state dict."""
    network = build(architecture)
    names = list(network.state_dict())
    thop_macs(architecture)
    torch_cost(architecture)
    assert list(network.state_dict()) == names == list(build(architecture).state_dict())


def test_building_is_reproducible(architecture: Architecture) -> None:
    torch.manual_seed(5)
    first = build(architecture).state_dict()
    torch.manual_seed(5)
    second = build(architecture).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_same_padding_is_tensorflow_s() -> None:
    """A strided 3 x 3 convolution pads one pixel after and none before, on even sides."""
    layer = SameConvNorm(1, 1, kernel=3, stride=2).eval()
    x = torch.randn(1, 1, 6, 6)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    assert torch.allclose(layer(x), layer.norm(layer.conv(padded)))
    odd = torch.randn(1, 1, 5, 7)
    assert layer(odd).shape[2:] == (3, 4)


def test_padding_and_epsilon_are_part_of_the_network() -> None:
    document = load_architecture("efficientnet_b0").document()
    document |= {"norm_eps": 0.001, "resolution": 64, "classes": 10}
    document["stem"]["padding"] = "same"
    for stage in document["stages"]:
        stage["block"]["padding"] = "same"
        stage["fusion"] = stage["fusion"][0]
    tensorflow = parse_architecture(document, where="tf_efficientnet_b0")
    network: Any = build(tensorflow).eval()
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.001}
    price = cost(tensorflow)
    assert torch_cost(tensorflow) == (price.macs, price.params)
    plain: Any = build(load_architecture("efficientnet_b0").model_copy(update={"classes": 10}))
    plain.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 64, 64)
    ours, theirs = plain.eval().stem(x), network.stem(x)
    assert ours.shape == theirs.shape
    assert not torch.allclose(ours, theirs)
