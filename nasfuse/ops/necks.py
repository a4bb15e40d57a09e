"""The table of necks, and those that join all levels at one place.

A neck takes the maps of the last levels, finest first, and puts out one map or one a
level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost
from nasfuse.ops.layers import ConvNorm, conv_norm_cost
from nasfuse.ops.pyramids import (
    FPN,
    PAN,
    BiFPN,
    Meeting,
    NeckPlan,
    bifpn_plan,
    fpn_plan,
    of_width,
    pan_plan,
)
from nasfuse.ops.resizing import Align, align_cost


class Chain(nn.Module):
    """f2(f1(x1, x2), x3) and so on: fusions of two maps join several.

    `fusions`: one fewer than maps.
    """

    def __init__(self, *, fusions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.fusions = nn.ModuleList(fusions)

    def forward(self, *maps: Tensor) -> Tensor:
        joined, *others = maps
        for fusion, x in zip(self.fusions, others, strict=True):
            joined = fusion(joined, x)
        return joined


class ASFFLevel(nn.Module):
    """act(norm(conv(sum of s_i y_i))), y_i all maps at one level, s their softmax.

    s = softmax(W [c1(y1); c2(y2); ...] + b) over the maps at each pixel, c_i =
    act(norm(W_i y)) to 16 channels; conv is 3 x 3 from the level's channels to
    `outputs`. act is leaky_relu(0.1).
    """

    def __init__(self, channels: Sequence[int], outputs: int, *, level: int) -> None:
        super().__init__()
        inner = channels[level]
        self.level = level
        self.aligns = nn.ModuleList(
            Align(c, inner, steps=level - i) for i, c in enumerate(channels)
        )
        self.compressed = nn.ModuleList(
            nn.Sequential(ConvNorm(inner, 16, kernel=1), nn.LeakyReLU(0.1))
            for _ in channels
        )
        self.weigh = nn.Conv2d(16 * len(channels), len(channels), 1)
        self.expand = nn.Sequential(
            ConvNorm(inner, outputs, kernel=3), nn.LeakyReLU(0.1)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[self.level].shape[2:]
        aligned = [f(x, size) for f, x in zip(self.aligns, maps, strict=True)]
        seen = [f(x) for f, x in zip(self.compressed, aligned, strict=True)]
        share = torch.softmax(self.weigh(torch.cat(seen, 1)), 1)
        parts = zip(share.unsqueeze(2).unbind(1), aligned, strict=True)
        return self.expand(sum(s * x for s, x in parts))


def asff_level_cost(shapes: Sequence[Shape], outputs: int, *, level: int) -> Cost:
    own, count = shapes[level], len(shapes)
    cost = conv_cost(own._replace(channels=16 * count), count, 1, bias=True)
    for i, shape in enumerate(shapes):
        cost += align_cost(shape, own.channels, steps=level - i)
        cost += conv_norm_cost(own, 16, kernel=1)
    return cost + conv_norm_cost(own, outputs, kernel=3)


class ASFF(nn.Module):
    """ASFFLevel at each level: every level weighs all levels, pixel by pixel.

    Several maps to as many of `width` channels. Liu et al. 2019, Learning Spatial
    Fusion for Single-Shot Object Detection, arXiv:1911.09516
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            ASFFLevel(channels, width, level=level) for level in range(len(channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level(maps) for level in self.levels)


def asff_plan(shapes: Sequence[Shape], width: int) -> NeckPlan:
    costs = [asff_level_cost(shapes, width, level=i) for i in range(len(shapes))]
    return NeckPlan(of_width(shapes, width), (), sum(costs, NOTHING))


class Hyper(nn.Module):
    """fusion(norm(W1 y1), norm(W2 y2), ...), y all maps at the size of the middle one.

    Finer maps are max pooled; coarser ones are enlarged bilinearly, where HyperNet
    learns a deconvolution. Of two middle levels it is the coarser. Several maps to one
    of `width` channels. Kong et al. 2016, HyperNet, arXiv:1604.00600 (its local
    response norm is a batch norm here); Bell et al. 2016, ION, arXiv:1512.04143
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, fusion: nn.Module
    ) -> None:
        super().__init__()
        self.middle = len(channels) // 2
        self.convs = nn.ModuleList(ConvNorm(c, width, kernel=1) for c in channels)
        self.fusion = fusion

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        middle = maps[self.middle]
        size = list(middle.shape[2:])
        sampled = [
            *(nn.functional.adaptive_max_pool2d(x, size) for x in maps[: self.middle]),
            middle,
            *(
                nn.functional.interpolate(x, size, mode="bilinear")
                for x in maps[self.middle + 1 :]
            ),
        ]
        same = [f(x) for f, x in zip(self.convs, sampled, strict=True)]
        return self.fusion(*same)


def hyper_plan(shapes: Sequence[Shape], width: int) -> NeckPlan:
    out = shapes[len(shapes) // 2]._replace(channels=width)
    sampled = [out._replace(channels=shape.channels) for shape in shapes]
    cost = sum((conv_norm_cost(shape, width, kernel=1) for shape in sampled), NOTHING)
    return NeckPlan((out,), (Meeting(out, len(shapes)),), cost)


class SPP(nn.Module):
    """relu(norm(W [x; max5(x); max9(x); max13(x)])) of the last map, W 1 x 1.

    max over 9 x 9 pixels is max over 5 x 5 twice, over 13 x 13 three times. Several
    maps to one of `width` channels. He et al. 2015, arXiv:1406.4729, in the form of
    YOLOv3-SPP
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv = ConvNorm(4 * channels[-1], width, kernel=1)
        self.activation = nn.ReLU()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pooled = [maps[-1]]
        for _ in range(3):
            pooled.append(nn.functional.max_pool2d(pooled[-1], 5, 1, padding=2))
        return self.activation(self.conv(torch.cat(pooled, 1)))


def spp_plan(shapes: Sequence[Shape], width: int) -> NeckPlan:
    last = shapes[-1]
    joined = last._replace(channels=4 * last.channels)
    cost = conv_norm_cost(joined, width, kernel=1)
    return NeckPlan(of_width([last], width), (), cost)


class Neck(NamedTuple):
    """A neck, what becomes of shapes in it, and under which name it is handed fusions.

    `module` takes the maps' channels and the width, then as keywords its fusions (in
    the order of the plan's meetings) and settings; `plan` shapes, width and settings.
    """

    module: type[nn.Module]
    plan: Callable[..., NeckPlan]
    joins: Literal["fusions", "fusion"] | None


NECKS = {
    "fpn": Neck(FPN, fpn_plan, "fusions"),
    "pan": Neck(PAN, pan_plan, "fusions"),
    "bifpn": Neck(BiFPN, bifpn_plan, "fusions"),
    "asff": Neck(ASFF, asff_plan, None),
    "hyper": Neck(Hyper, hyper_plan, "fusion"),
    "spp": Neck(SPP, spp_plan, None),
}
