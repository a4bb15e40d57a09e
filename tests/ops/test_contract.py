"""What every operator promises, once for each row of each table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasfuse.costs import Cost, Shape
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import HEADS

SHAPES = [Shape(8, 6, 6), Shape(12, 5, 7), Shape(32, 4, 4)]
BLOCK_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "residual": [{"kernel": 3}, {"kernel": 5}],
    "mbconv": [
        {"kernel": 3, "expand": 1, "se": None},
        {"kernel": 5, "expand": 4, "se": 4},
        {"kernel": 7, "expand": 2, "se": 64},
    ],
    "dense": [{"kernel": 3, "bottleneck": 4}, {"kernel": 1, "bottleneck": 1}],
}
FUSION_SETTINGS: dict[str, list[dict[str, Any]]] = {
    kind: [{"reduction": 4}, {"reduction": 64}] for kind in ("se", "sk", "ms_cam", "aff", "iaff")
}
HEAD_SETTINGS: dict[str, list[dict[str, Any]]] = {"conv": [{"width": 20}]}


class Case(NamedTuple):
    """An operator on a shape: how to build it, its inputs, what it should cost and put out."""

    build: Callable[[], nn.Module]
    inputs: tuple[Shape, ...]
    cost: Cost
    output: tuple[int, ...]


def fusion_cases(shape: Shape) -> dict[str, Case]:
    cases = {}
    for kind, row in FUSIONS.items():
        for settings in FUSION_SETTINGS.get(kind, [{}]):
            width = (shape.channels,) if row.sized else ()
            other = shape._replace(channels=5) if kind == "concat" else shape
            channels = shape.channels + 5 if kind == "concat" else shape.channels
            cases[f"{kind} {settings}"] = Case(
                partial(row.module, *width, **settings),
                (shape, other),
                row.cost(shape, **settings),
                (channels, shape.height, shape.width),
            )
    return cases


def block_cases(shape: Shape) -> dict[str, Case]:
    cases = {}
    for kind, row in BLOCKS.items():
        for settings in BLOCK_SETTINGS[kind]:
            for stride in (1, 2):
                cases[f"{kind} {settings} stride {stride}"] = Case(
                    partial(
                        row.module,
                        shape.channels,
                        16,
                        stride=stride,
                        activation=nn.SiLU,
                        **settings,
                    ),
                    (shape,),
                    row.cost(shape, 16, stride, **settings),
                    tuple(shape.strided(16, stride)),
                )
    return cases


def head_cases(shape: Shape) -> dict[str, Case]:
    cases = {}
    for kind, row in HEADS.items():
        for settings in HEAD_SETTINGS.get(kind, [{}]):
            cases[f"{kind} {settings}"] = Case(
                partial(row.module, shape.channels, 10, activation=nn.ReLU, **settings),
                (shape,),
                row.cost(shape, 10, **settings),
                (10,),
            )
    return cases


CASES = {
    f"{name} {shape}": case
    for shape in SHAPES
    for make in (fusion_cases, block_cases, head_cases)
    for name, case in make(shape).items()
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def maps(case: Case, batch: int, *, grad: bool = False) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(batch, *shape, requires_grad=grad) for shape in case.inputs)


@every_case
def test_cost_is_what_torch_counts(case: Case) -> None:
    with torch.device("meta"):
        module = case.build().eval()
        inputs = tuple(torch.empty(1, *shape) for shape in case.inputs)
    with FlopCounterMode(display=False) as counter:
        output = module(*inputs)
    params = sum(p.numel() for p in module.parameters())
    assert tuple(output.shape[1:]) == case.output
    assert (counter.get_total_flops() // 2, params) == (case.cost.macs, case.cost.params)


@every_case
def test_gradient_reaches_every_input_and_parameter(case: Case) -> None:
    module, inputs = case.build(), maps(case, 4, grad=True)
    # gates begin with weights of zero; after one step nothing is special any more
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    module(*inputs).square().sum().backward()
    for tensor in (*inputs, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)


@every_case
def test_evaluation_is_deterministic_and_takes_one_image(case: Case) -> None:
    module = case.build().eval()
    inputs = maps(case, 1)
    with torch.no_grad():
        assert torch.equal(module(*inputs), module(*inputs))


@every_case
def test_bf16_autocast_and_channels_last(case: Case) -> None:
    module = case.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = [x.contiguous(memory_format=torch.channels_last) for x in maps(case, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        assert module(*inputs).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if str(SHAPES[0]) in name])
def test_exports(name: str) -> None:
    module, inputs = CASES[name].build().eval(), maps(CASES[name], 2)
    exported = torch.export.export(module, inputs)
    with torch.no_grad():
        assert torch.equal(exported.module()(*inputs), module(*inputs))
