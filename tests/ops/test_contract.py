"""What every operator promises, once for each row of each table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasfuse.costs import Cost, Shape
from nasfuse.layouts import keep_channels_last
from nasfuse.ops.attention import ATTENTIONS
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.counting import THOP_HANDLERS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import HEADS

SHAPES = [Shape(8, 6, 6), Shape(12, 5, 7), Shape(32, 4, 4)]
GROUPED = {"kernel": 3, "inner": 8}
BLOCK_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "residual": [{"kernel": 3}, {"kernel": 5}],
    "preact": [{"kernel": 3}, {"kernel": 1}],
    "bottleneck": [{**GROUPED, "groups": 1}, {**GROUPED, "groups": 4}],
    "preact_bottleneck": [{**GROUPED, "groups": 2}],
    "dual_path": [{**GROUPED, "groups": 8}],
    "sk_bottleneck": [{**GROUPED, "groups": 2, "reduction": 4}],
    "regnet": [{**GROUPED, "groups": 4}, {**GROUPED, "groups": 1, "se": 4}],
    "mbconv": [
        {"kernel": 3, "expand": 1},
        {"kernel": 5, "expand": 4, "se": 4},
        {"kernel": 7, "expand": 2, "se": 64},
    ],
    "fused_mbconv": [{"kernel": 3, "expand": 1}, {"kernel": 3, "expand": 4, "se": 4}],
    "dense": [{"kernel": 3, "bottleneck": 4}, {"kernel": 1, "bottleneck": 1}, {"kernel": 3}],
}
REDUCED = ("se", "sk", "ms_cam", "aff", "iaff", "cross_attention", "cbam", "bam")
REDUCTIONS: list[dict[str, Any]] = [{"reduction": 4}, {"reduction": 64}]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "aff": [{"reduction": 4, "scale": 2}],
    "iaff": [{"reduction": 4, "shared": True}],
}
HEAD_SETTINGS: dict[str, list[dict[str, Any]]] = {"conv": [{"width": 20}]}


class Case(NamedTuple):
    """An operator on a shape: how to build it, its inputs, what it should cost and put out."""

    build: Callable[[], nn.Module]
    inputs: tuple[Shape, ...]
    cost: Cost
    output: tuple[int, ...]
    idle: tuple[str, ...] = ()  # parameters that are there, without a gradient


def settings(kind: str) -> list[dict[str, Any]]:
    """What a fusion or an attention is tried with."""
    return (REDUCTIONS if kind in REDUCED else [{}]) + OPTIONS.get(kind, [])


def fusion_cases(shape: Shape) -> dict[str, Case]:
    """Of two maps, and of three where an operator takes any number."""
    cases = {}
    for kind, row in FUSIONS.items():
        width = (shape.channels,) if row.sized else ()
        for options in settings(kind):
            for inputs in (2,) if row.joins == "two" else (2, 3):
                told = {"inputs": inputs} if row.joins == "told" else {}
                others = (shape._replace(channels=shape.channels + 5 * (kind in GROWS)),)
                maps = (shape, *others * (inputs - 1))
                cases[f"{kind} {options} {inputs} maps"] = Case(
                    partial(row.module, *width, **told, **options),
                    maps,
                    row.cost(shape, **told, **options),
                    tuple(joined(kind, maps)),
                    idle=("context",) if options.get("shared") else (),
                )
    return cases


GROWS = ("concat", "dual_path")


def joined(kind: str, maps: tuple[Shape, ...]) -> Shape:
    """The map that comes out: side by side, partly so, or of the maps' own size."""
    if kind in ("concat", "complex"):
        return maps[0]._replace(channels=sum(shape.channels for shape in maps))
    return maps[1]


def attention_cases(shape: Shape) -> dict[str, Case]:
    return {
        f"{kind} {options}": Case(
            partial(row.module, shape.channels, **options),
            (shape,),
            row.cost(shape, **options),
            tuple(shape),
        )
        for kind, row in ATTENTIONS.items()
        for options in settings(kind)
    }


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
            active = {"activation": nn.ReLU} if row.activated else {}
            cases[f"{kind} {settings}"] = Case(
                partial(row.module, shape.channels, 10, **active, **settings),
                (shape,),
                row.cost(shape, 10, **settings),
                (10,),
            )
    return cases


CASES = {
    f"{name} {shape}": case
    for shape in SHAPES
    for make in (fusion_cases, attention_cases, block_cases, head_cases)
    for name, case in make(shape).items()
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def maps(case: Case, batch: int, *, grad: bool = False) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(batch, *shape, requires_grad=grad) for shape in case.inputs)


def on_meta(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The operator alone in a module, as thop wants it, and one image's maps: no arithmetic."""
    with torch.device("meta"):
        return Alone(case.build()).eval(), tuple(torch.empty(1, *shape) for shape in case.inputs)


def torch_counts(case: Case) -> tuple[int, int]:
    """Parameters and MACs."""
    module, inputs = on_meta(case)
    with FlopCounterMode(display=False) as counter:
        assert module(*inputs).shape[1:] == case.output
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2


@every_case
def test_cost_is_what_torch_and_thop_count(case: Case) -> None:
    assert torch_counts(case) == (case.cost.params, case.cost.macs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop compares versions by distutils
        import thop

        macs, _ = thop.profile(*on_meta(case), custom_ops=THOP_HANDLERS, verbose=False)
    assert macs == case.cost.thop


Formula = Callable[[int, int, int, int], tuple[int, int]]
FUSION_FORMULAS: dict[str, Formula] = {
    "weighted": lambda c, i, n, k: (k, 0),
    "fast_normalised": lambda c, i, n, k: (k, 0),
    "softmax": lambda c, i, n, k: (k, 0),
    "concat_conv": lambda c, i, n, k: (k * c * c + 2 * c, k * c * c * n),
    "concat_linear": lambda c, i, n, k: (k * c * c + c, k * c * c * n),
    "norm_concat": lambda c, i, n, k: (2 * k * c + k * c * c, k * c * c * n),
    "gated": lambda c, i, n, k: (c * c + c, c * c * n),
    "shortcut_gated": lambda c, i, n, k: (c * c + c, c * c * n),
    "se": lambda c, i, n, k: (2 * c * i + i + c, 2 * c * i),
    "sk": lambda c, i, n, k: ((k + 1) * c * max(i, 32) + 2 * max(i, 32), (k + 1) * c * max(i, 32)),
    "ms_cam": lambda c, i, n, k: (2 * (2 * c * i + 3 * i + 3 * c), 2 * c * i * (n + 1)),
    "aff": lambda c, i, n, k: (2 * (2 * c * i + 3 * i + 3 * c), 2 * c * i * (n + 1)),
    "iaff": lambda c, i, n, k: (4 * (2 * c * i + 3 * i + 3 * c), 4 * c * i * (n + 1)),
    "cross_attention": lambda c, i, n, k: (
        2 * c * i + 2 * c * c + 2 * c,
        (2 * c * i + 2 * c * c) * n + n * n * (i + c),
    ),
    "asff": lambda c, i, n, k: (
        k * (16 * c + 32) + 16 * k * k + k,
        n * (16 * k * c + 16 * k * k),
    ),
}
ATTENTION_FORMULAS: dict[str, Formula] = {
    "se": lambda c, i, n, k: (2 * c * i + i + c, 2 * c * i),
    "eca": lambda c, i, n, k: {64: (3, 3 * 64), 256: (5, 5 * 256)}[c],
    "cbam": lambda c, i, n, k: (2 * c * i + i + c + 100, 4 * c * i + 98 * n),
    "bam": lambda c, i, n, k: (
        3 * c * i + 13 * i + c + 18 * i * i + 1,
        2 * c * i + n * (c * i + 18 * i * i + i),
    ),
    "non_local": lambda c, i, n, k: (2 * c * c + 9 * c // 2, 2 * c * c * n + n * n * c),
}


@pytest.mark.parametrize("shape", [Shape(64, 56, 56), Shape(256, 14, 14)], ids=str)
def test_costs_are_those_of_the_literature(shape: Shape) -> None:
    """Parameters and MACs of c channels, i = c / 4 in a bottleneck, n pixels and k maps."""
    sizes = (shape.channels, shape.channels // 4, shape.pixels)
    cases, expected = fusion_cases(shape) | attention_cases(shape), {}
    for kind, formula in FUSION_FORMULAS.items():
        for k in (2,) if FUSIONS[kind].joins == "two" else (2, 3):
            expected[f"{kind} {settings(kind)[0]} {k} maps"] = formula(*sizes, k)
    for kind, formula in ATTENTION_FORMULAS.items():
        expected[f"{kind} {settings(kind)[0]}"] = formula(*sizes, 1)
    assert {name: torch_counts(cases[name]) for name in expected} == expected
    assert {name: (cases[name].cost.params, cases[name].cost.macs) for name in expected} == expected


class Alone(nn.Module):
    """A module inside another one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *maps: Tensor) -> Tensor:
        out: Tensor = self.module(*maps)
        return out


@every_case
def test_gradient_reaches_every_input_and_parameter(case: Case) -> None:
    module, inputs = case.build(), maps(case, 4, grad=True)
    # gates begin with weights of zero; after one step nothing is special any more
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    module(*inputs).square().sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert (parameter.grad is None) == name.startswith(case.idle or "?"), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@every_case
def test_evaluation_is_deterministic_and_takes_one_image(case: Case) -> None:
    module = case.build().eval()
    inputs = maps(case, 1)
    with torch.no_grad():
        assert torch.equal(module(*inputs), module(*inputs))


@every_case
def test_bf16_autocast_and_channels_last(case: Case) -> None:
    """Maps and gradients stay as they lie: operators on mixed layouts are many times slower."""
    last = torch.channels_last
    module = case.build().to(memory_format=last)  # type: ignore[call-overload]
    keep_channels_last(module)
    inputs = [x.contiguous(memory_format=last).requires_grad_() for x in maps(case, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(*inputs)
    assert out.isfinite().all()
    assert out.ndim < 4 or out.is_contiguous(memory_format=last)
    gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
    assert all(each.stride(1) == 1 for each in gradients), "channels are innermost"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if str(SHAPES[0]) in name])
def test_exports(name: str) -> None:
    module, inputs = CASES[name].build().eval(), maps(CASES[name], 2)
    exported = torch.export.export(module, inputs)
    with torch.no_grad():
        assert torch.equal(exported.module()(*inputs), module(*inputs))
