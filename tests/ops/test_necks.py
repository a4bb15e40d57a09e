"""What every neck promises, and the published numbers of those that have some."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasfuse.costs import Cost, Shape
from nasfuse.ops.necks import NECKS, SPP, ASFFLevel, Chain, asff_level_cost
from nasfuse.ops.pyramids import NeckPlan
from nasfuse.ops.resizing import Fit, Shrink

WIDTH = 12
PYRAMIDS = [
    (Shape(8, 9, 9), Shape(12, 5, 5)),
    (Shape(8, 13, 11), Shape(12, 7, 6), Shape(20, 4, 3)),
    (Shape(8, 16, 16), Shape(8, 8, 8), Shape(12, 4, 4), Shape(16, 2, 2)),
    (Shape(12, 12, 13), Shape(12, 5, 4), Shape(16, 2, 3)),
    (Shape(8, 9, 7), Shape(16, 9, 7), Shape(12, 3, 2), Shape(20, 3, 2)),
]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "bifpn": [{"repeats": 1}, {"repeats": 2, "extra": 2}],
}


class Sum(nn.Module):
    """v x + w y + ..., keeping what it was called with."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *maps: Tensor) -> Tensor:
        self.calls.append(maps)
        pairs = zip(self.weights, maps, strict=True)
        return torch.stack([w * x for w, x in pairs]).sum(0)


class Case(NamedTuple):
    """A neck on a pyramid."""

    kind: str
    shapes: tuple[Shape, ...]
    settings: dict[str, Any]

    @property
    def plan(self) -> NeckPlan:
        return NECKS[self.kind].plan(self.shapes, WIDTH, **self.settings)

    @property
    def cost(self) -> Cost:
        return self.plan.cost + Cost(params=sum(place.inputs for place in self.plan.meetings))

    def build(self, fusion: Callable[[int], nn.Module] = Sum) -> nn.Module:
        return build(self.kind, self.shapes, WIDTH, fusion, **self.settings)


def build(
    kind: str,
    shapes: tuple[Shape, ...],
    width: int,
    fusion: Callable[[int], nn.Module] = Sum,
    **settings: Any,
) -> nn.Module:
    row = NECKS[kind]
    made = [fusion(place.inputs) for place in row.plan(shapes, width, **settings).meetings]
    if row.joins == "fusions":
        settings = settings | {"fusions": made}
    elif row.joins:
        settings = settings | {"fusion": made[0]}
    return row.module([shape.channels for shape in shapes], width, **settings)


CASES = {
    f"{kind} {' '.join(map(str, shapes))} {settings}": Case(kind, shapes, settings)
    for kind in NECKS
    for shapes in PYRAMIDS
    for settings in SETTINGS.get(kind, [{}])
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def maps(case: Case, batch: int, *, grad: bool = False) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, *shape, requires_grad=grad) for shape in case.shapes]


def listed(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else output


@every_case
def test_cost_is_what_torch_counts(case: Case) -> None:
    with torch.device("meta"):
        neck = case.build().eval()
        inputs = [torch.empty(1, *shape) for shape in case.shapes]
    with FlopCounterMode(display=False) as counter:
        outputs = listed(neck(inputs))
    assert tuple(tuple(x.shape[1:]) for x in outputs) == case.plan.outputs
    params = sum(p.numel() for p in neck.parameters())
    assert (counter.get_total_flops() // 2, params) == (case.cost.macs, case.cost.params)


@every_case
def test_cost_is_what_thop_counts(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop compares versions by distutils
        import thop
    with torch.device("meta"):
        neck = nn.Sequential(case.build().eval())
        inputs = [torch.empty(1, *shape) for shape in case.shapes]
    macs, _ = thop.profile(neck, (inputs,), verbose=False)
    assert macs == case.cost.thop


@every_case
def test_fusions_meet_where_the_plan_says(case: Case) -> None:
    made: list[Sum] = []

    def fusion(inputs: int) -> Sum:
        made.append(Sum(inputs))
        return made[-1]

    case.build(fusion)(maps(case, 2))
    assert len(made) == len(case.plan.meetings)
    for (shape, inputs), (call,) in zip(case.plan.meetings, [f.calls for f in made], strict=True):
        assert [tuple(x.shape[1:]) for x in call] == [shape] * inputs


@every_case
def test_gradient_reaches_every_input_and_parameter(case: Case) -> None:
    neck, inputs = case.build(), maps(case, 4, grad=True)
    sum(x.square().sum() for x in listed(neck(inputs))).backward()  # type: ignore[union-attr]
    for parameter in neck.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    for x in inputs[-1:] if case.kind == "spp" else inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


@every_case
def test_evaluation_is_deterministic_and_takes_one_image(case: Case) -> None:
    neck, inputs = case.build().eval(), maps(case, 1)
    with torch.no_grad():
        pairs = zip(listed(neck(inputs)), listed(neck(inputs)), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


@every_case
def test_bf16_autocast_and_channels_last(case: Case) -> None:
    neck = case.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = [x.contiguous(memory_format=torch.channels_last) for x in maps(case, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        assert all(x.isfinite().all() for x in listed(neck(inputs)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if " 8x13x11 " in name])
def test_exports(name: str) -> None:
    neck = CASES[name].build(lambda inputs: Chain(fusions=[Pair()] * (inputs - 1)))
    inputs = maps(CASES[name], 2)
    exported = torch.export.export(neck.eval(), (inputs,)).module()
    with torch.no_grad():
        pairs = zip(listed(exported(inputs)), listed(neck(inputs)), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


class Pair(nn.Module):
    """x + tanh(y), of two maps only."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + torch.tanh(y)


def test_chain_joins_three_maps_by_twos() -> None:
    x, y, z = torch.randn(3, 2, 4, 5, 5)
    chain = Chain(fusions=[Pair(), Pair()])
    assert torch.equal(chain(x, y, z), x + torch.tanh(y) + torch.tanh(z))
    with pytest.raises(ValueError, match="zip"):
        chain(x, y)


def levels(*channels: int, side: int) -> tuple[Shape, ...]:
    shapes = [Shape(channels[0], side, side)]
    for count in channels[1:]:
        shapes.append(shapes[-1].strided(count, 2))
    return tuple(shapes)


R50 = levels(256, 512, 1024, 2048, side=200)
D0 = levels(40, 112, 320, side=64)
YOLOV3 = levels(256, 256, 512, side=76)


@pytest.mark.parametrize(
    ("kind", "shapes", "width", "settings", "macs", "params"),
    [
        ("fpn", R50, 256, {}, 36_249_600_000, 3_344_384),
        ("pan", R50, 256, {}, 51_732_480_000, 6_884_864),
        ("bifpn", D0, 64, {"repeats": 3, "extra": 2}, None, 196_281),
        ("bifpn", D0, 64, {"repeats": 3}, None, 117_211),
    ],
)
def test_published_costs(
    kind: str,
    shapes: tuple[Shape, ...],
    width: int,
    settings: dict[str, Any],
    macs: int | None,
    params: int,
) -> None:
    plan = NECKS[kind].plan(shapes, width, **settings)
    weights = sum(place.inputs for place in plan.meetings) if kind == "bifpn" else 0
    assert plan.cost.params + weights == params
    assert macs is None or plan.cost.macs == macs
    with torch.device("meta"):
        neck = build(kind, shapes, width, Sum if weights else lambda _: Pair(), **settings)
    assert sum(p.numel() for p in neck.parameters()) == params


@pytest.mark.parametrize(
    ("level", "outputs", "params", "giga"),
    [(2, 1024, 7_106_803, 2.56), (1, 512, 1_915_123, 2.62), (0, 256, 734_451, 3.53)],
)
def test_published_costs_of_asff(level: int, outputs: int, params: int, giga: float) -> None:
    cost = asff_level_cost(YOLOV3, outputs, level=level)
    with torch.device("meta"):
        module = ASFFLevel([256, 256, 512], outputs, level=level).eval()
        inputs = [torch.empty(1, *shape) for shape in YOLOV3]
    with FlopCounterMode(display=False) as counter:
        assert module(inputs).shape[1:] == YOLOV3[level]._replace(channels=outputs)
    assert counter.get_total_flops() // 2 == cost.macs
    assert (cost.params, round(cost.macs / 1e9, 2)) == (params, giga)
    assert sum(p.numel() for p in module.parameters()) == params


def transparent(neck: nn.Module) -> nn.Module:
    """The neck with convolutions that pass maps on, so that only its fusions do something."""
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight, module.groups)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return neck.eval()


@pytest.mark.parametrize(
    ("kind", "calls", "outputs"),
    [
        ("fpn", [(200, 2000), (20, 2200)], (2220, 2200, 2000)),
        (
            "pan",
            [(200, 2000), (20, 2200), (2200, 2220), (2000, 4420)],
            (2220, 4420, 6420),
        ),
        (
            "bifpn",
            [(200, 2000), (20, 2200), (200, 2200, 2220), (2000, 4620)],
            (2220, 4620, 6620),
        ),
        ("asff", [], (20, 200, 2000)),
        ("hyper", [(20, 200, 2000)], (2220,)),
        ("spp", [], (2000,)),
    ],
)
def test_fusions_get_the_level_itself_first(
    kind: str, calls: list[tuple[int, ...]], outputs: tuple[int, ...]
) -> None:
    made: list[Sum] = []

    def fusion(inputs: int) -> Sum:
        made.append(Sum(inputs))
        return made[-1]

    shapes = levels(8, 8, 8, side=16)
    settings = {"repeats": 1} if kind == "bifpn" else {}
    neck = transparent(build(kind, shapes, 8, fusion, **settings))
    if kind == "asff":
        choose_own_level(neck)
    values = (20, 200, 2000)
    with torch.no_grad():
        inputs = [torch.full((1, *s), float(v)) for s, v in zip(shapes, values, strict=True)]
        got = [x.mean().item() for x in listed(neck(inputs))]
    means = [tuple(x.mean().item() for x in call) for f in made for call in f.calls]
    assert got == pytest.approx(outputs, rel=1e-3)
    assert [pytest.approx(call, rel=1e-3) for call in calls] == means


def choose_own_level(neck: nn.Module) -> None:
    for level, module in enumerate(m for m in neck.modules() if isinstance(m, ASFFLevel)):
        nn.init.zeros_(module.weigh.weight)
        module.weigh.bias = nn.Parameter(1000 * torch.eye(3)[level])


def test_halving_pools_as_tensorflow_does() -> None:
    shrink = Shrink()
    odd = torch.randn(2, 3, 7, 9)
    assert torch.equal(shrink(odd, (4, 5)), nn.functional.max_pool2d(odd, 3, 2, padding=1))
    even = torch.randn(2, 3, 8, 6)
    rows = torch.stack([even[:, :, i : i + 3].amax(2) for i in (0, 2, 4, 6)], 2)
    windows = torch.stack([rows[..., i : i + 3].amax(3) for i in (0, 2, 4)], 3)
    assert torch.equal(shrink(even, (4, 3)), windows)


@pytest.mark.parametrize("size", [(13, 13), (7, 7), (6, 5), (4, 3), (1, 1), (13, 2)])
def test_resizing_meets_any_size(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 13, 13)
    small = Shrink()(x, size)
    assert small.shape[2:] == size
    assert Fit()(small, (13, 13)).shape == x.shape
    assert small.amax() == x.amax()


def test_spp_pools_over_5_9_and_13() -> None:
    seen: list[Tensor] = []
    neck = SPP([4], 8)
    neck.conv.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    x = torch.randn(2, 4, 11, 10)
    neck([x])
    pools = [nn.functional.max_pool2d(x, k, 1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(seen[0], torch.cat([x, *pools], 1))
