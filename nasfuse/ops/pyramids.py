"""Necks that put out a map a level: top-down, bottom-up, and both many times over.

They take the maps of the last levels, finest first, and are handed the fusions where
paths meet, in the order in which these are run: modules that are called with two or
three maps, the level's own first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.resizing import Fit, Project, Shrink, project_cost


class Meeting(NamedTuple):
    """A place for a fusion: the shape of all its maps, and how many go in."""

    shape: Shape
    inputs: int


class NeckPlan(NamedTuple):
    """What a neck puts out, where its fusions stand, and what all but these cost."""

    outputs: tuple[Shape, ...]
    meetings: tuple[Meeting, ...]
    cost: Cost


def of_width(shapes: Sequence[Shape], width: int) -> tuple[Shape, ...]:
    return tuple(shape._replace(channels=width) for shape in shapes)


class FPN(nn.Module):
    """conv(t_l) a level, t_l = fusion(W_l x_l + b_l, t_(l+1) enlarged), top-down.

    The coarsest t is W x + b; conv is 3 x 3 with bias; nothing is normalised.
    `fusions`: one for each level but the coarsest, coarsest first. Several maps to as
    many of `width` channels. Lin et al. 2017, Feature Pyramid Networks for Object
    Detection, arXiv:1612.03144
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, fusions: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fusions = nn.ModuleList(fusions)
        self.outputs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in channels
        )
        self.fit = Fit()

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *finer, top = [f(x) for f, x in zip(self.laterals, maps, strict=True)]
        tops = [top]
        for fusion, x in zip(self.fusions, finer[::-1], strict=True):
            tops.append(fusion(x, self.fit(tops[-1], x.shape[2:])))
        return tuple(f(x) for f, x in zip(self.outputs, tops[::-1], strict=True))


def fpn_plan(shapes: Sequence[Shape], width: int) -> NeckPlan:
    maps = of_width(shapes, width)
    laterals = [conv_cost(shape, width, 1, bias=True) for shape in shapes]
    outputs = [conv_cost(shape, width, 3, bias=True) for shape in maps]
    meetings = tuple(Meeting(shape, 2) for shape in maps[-2::-1])
    return NeckPlan(maps, meetings, sum(laterals + outputs, NOTHING))


class PAN(nn.Module):
    """FPN, then conv(b_l) a level, b_l = fusion(p_l, down(b_(l-1))), bottom-up.

    p are FPN's outputs, b_0 = p_0 is put out as it is, down and conv are 3 x 3 with
    bias, down with stride 2. `fusions`: FPN's, then one for each level but the finest,
    finest first. Liu et al. 2018, Path Aggregation Network, arXiv:1803.01534 (PAFPN)
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, fusions: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        steps = len(channels) - 1
        self.top_down = FPN(channels, width, fusions=fusions[:steps])
        self.downs = nn.ModuleList(
            nn.Conv2d(width, width, 3, 2, padding=1) for _ in range(steps)
        )
        self.fusions = nn.ModuleList(fusions[steps:])
        self.outputs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(steps)
        )
        self.fit = Fit()

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        finest, *others = self.top_down(maps)
        sums = [finest]
        for x, down, fusion in zip(others, self.downs, self.fusions, strict=True):
            sums.append(fusion(x, self.fit(down(sums[-1]), x.shape[2:])))
        convolved = [f(x) for f, x in zip(self.outputs, sums[1:], strict=True)]
        return (finest, *convolved)


def pan_plan(shapes: Sequence[Shape], width: int) -> NeckPlan:
    maps, meetings, cost = fpn_plan(shapes, width)
    downs = [conv_cost(shape, width, 3, stride=2, bias=True) for shape in maps[:-1]]
    outputs = [conv_cost(shape, width, 3, bias=True) for shape in maps[1:]]
    meetings += tuple(Meeting(shape, 2) for shape in maps[1:])
    return NeckPlan(maps, meetings, sum(downs + outputs, cost))


class BiFPNNode(nn.Module):
    """norm(W dw(silu(fusion(x1, x2, ...)))), dw 3 x 3 within each channel, W 1 x 1."""

    def __init__(self, width: int, *, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion
        self.activation = nn.SiLU()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, *maps: Tensor) -> Tensor:
        joined = self.activation(self.fusion(*maps))
        return self.norm(self.pointwise(self.depthwise(joined)))


def bifpn_node_cost(shape: Shape) -> Cost:
    depthwise = conv_cost(shape, shape.channels, 3, groups=shape.channels)
    pointwise = conv_cost(shape, shape.channels, 1, bias=True)
    return depthwise + pointwise + norm_cost(shape)


class BiFPNCell(nn.Module):
    """t_l = node(x_l, t_(l+1) enlarged), then o_l = node(x_l, t_l, o_(l-1) shrunk).

    The coarsest t is x and not among its o's inputs; o_0 is t_0. Each node that reads
    an x of another number of channels has its own projection of it.
    """

    def __init__(
        self, channels: Sequence[int], width: int, *, fusions: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        steps = len(channels) - 1
        self.down_edges = nn.ModuleList(Project(c, width) for c in channels)
        self.down_nodes = nn.ModuleList(
            BiFPNNode(width, fusion=fusion) for fusion in fusions[:steps]
        )
        self.up_edges = nn.ModuleList(Project(c, width) for c in channels[1:])
        self.up_nodes = nn.ModuleList(
            BiFPNNode(width, fusion=fusion) for fusion in fusions[steps:]
        )
        self.fit = Fit()
        self.shrink = Shrink()

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *finer, top = [f(x) for f, x in zip(self.down_edges, maps, strict=True)]
        tops = [top]
        for node, x in zip(self.down_nodes, finer[::-1], strict=True):
            tops.append(node(x, self.fit(tops[-1], x.shape[2:])))
        outs = [tops.pop()]
        coarser = [f(x) for f, x in zip(self.up_edges, maps[1:], strict=True)]
        for node, x in zip(self.up_nodes, coarser, strict=True):
            inner = tops.pop()
            own = (x, inner) if tops else (x,)
            outs.append(node(*own, self.shrink(outs[-1], x.shape[2:])))
        return tuple(outs)


class BiFPN(nn.Module):
    """BiFPNCell `repeats` times over, with `extra` levels beyond the coarsest.

    Each is the level before it (the first projected to `width`) at half the size, by
    max over 3 x 3. `fusions`: for each cell one for each level but the coarsest,
    coarsest first, of two maps, then one for each level but the finest, finest first,
    of three maps and for the coarsest of two. Tan et al. 2020, EfficientDet,
    arXiv:1911.09070
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        repeats: int,
        fusions: Sequence[nn.Module],
        extra: int = 0,
    ) -> None:
        super().__init__()
        levels = [*channels, *[width] * extra]
        each = 2 * (len(levels) - 1)
        self.extra = nn.ModuleList(
            Project(c, width) for c in levels[len(channels) - 1 : -1]
        )
        self.shrink = Shrink()
        self.cells = nn.ModuleList(
            BiFPNCell(
                [width] * len(levels) if number else levels,
                width,
                fusions=fusions[each * number : each * (number + 1)],
            )
            for number in range(repeats)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        levels = tuple(maps)
        for project in self.extra:
            x = project(levels[-1])
            half = tuple(-(-side // 2) for side in x.shape[2:])
            levels += (self.shrink(x, half),)
        for cell in self.cells:
            levels = cell(levels)
        return levels


def bifpn_plan(
    shapes: Sequence[Shape], width: int, *, repeats: int, extra: int = 0
) -> NeckPlan:
    levels = list(shapes)
    projections = NOTHING
    for _ in range(extra):
        projections += project_cost(levels[-1], width)
        levels.append(levels[-1].strided(width, 2))
    for shape in levels + levels[1:]:
        projections += project_cost(shape, width)
    maps = of_width(levels, width)
    places = (*maps[-2::-1], *maps[1:])
    inputs = [2] * len(maps[1:]) + [3] * len(maps[2:]) + [2]
    meetings = tuple(map(Meeting, places, inputs)) * repeats
    nodes = [bifpn_node_cost(shape) for shape, _ in meetings]
    return NeckPlan(maps, meetings, sum(nodes, projections))
