"""The plan of a network: its layers from image to classes, with their shapes and prices.

One walk derives every channel count. Building, pricing and writing a network's source all follow
from it, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from torch import nn

from nasfuse.architecture import Architecture
from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost, pool_cost
from nasfuse.genes import (
    SEVERAL_MAPS,
    SPP,
    Attention,
    BiFPN,
    Block,
    Fusion,
    Gene,
    Hyper,
    Late,
    Neck,
    Pyramid,
)
from nasfuse.ops.attention import ATTENTIONS
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import (
    HEADS,
    LateHead,
    LevelsHead,
    late_head_cost,
    levels_head_cost,
)
from nasfuse.ops.layers import (
    ACTIVATIONS,
    ConvNorm,
    Halve,
    NormConv,
    SameConvNorm,
    conv_norm_cost,
    norm_conv_cost,
)
from nasfuse.ops.necks import NECKS, Chain
from nasfuse.ops.skips import Pad, PreactSkip, Skip, Transition, transition_cost
from nasfuse.ops.stems import BareStem, Stem
from nasfuse.stages import Join, Stage

Activation = type[nn.Module]


class Part(NamedTuple):
    """A module to be: its class, its arguments by position and by name; some may be parts."""

    module: type[nn.Module]
    sizes: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> nn.Module:
        options = {name: _built(value) for name, value in self.options}
        return self.module(*(_built(size) for size in self.sizes), **options)


def _built(value: Any) -> Any:
    if isinstance(value, Part):
        return value.build()
    if isinstance(value, tuple):
        return tuple(_built(item) for item in value)
    return value


def part(module: type[nn.Module], *sizes: Any, **options: Any) -> Part:
    """A part, written as the call that builds it."""
    return Part(module, sizes, tuple(options.items()))


class Layer(NamedTuple):
    """One step of a network: its name in the module, what it is, puts out and costs."""

    name: str
    part: Part
    shape: Shape
    cost: Cost


def plan(architecture: Architecture) -> Iterator[Layer]:
    """The layers from image to classes: `stem`, `stages.0.0` and so on, `neck`, `head`."""
    activation = ACTIVATIONS[architecture.activation]
    maps = [_image(architecture)]
    for layer in _stem(architecture, maps[-1], activation):
        yield layer
        maps[-1] = layer.shape
    for number, stage in enumerate(architecture.stages):
        layers = list(_stage(stage, f"stages.{number}", maps[-1], activation))
        yield from layers
        maps.append(layers[-1].shape)
    yield from _end(architecture, maps, activation)


def price(architecture: Architecture) -> Cost:
    """The sum of the plan's costs, stage by stage: equal stages are priced once."""
    activation = ACTIVATIONS[architecture.activation]
    maps, total = [_image(architecture)], NOTHING
    for layer in _stem(architecture, maps[-1], activation):
        maps[-1], total = layer.shape, total + layer.cost
    for stage in architecture.stages:
        shape, cost = _priced(stage, maps[-1], architecture.activation)
        maps.append(shape)
        total += cost
    return sum((layer.cost for layer in _end(architecture, maps, activation)), total)


def _image(architecture: Architecture) -> Shape:
    return Shape(architecture.channels, architecture.resolution, architecture.resolution)


# fitting a network to a budget changes one stage at a time
@lru_cache(maxsize=1 << 8)
def _priced(stage: Stage, shape: Shape, activation: str) -> tuple[Shape, Cost]:
    layers = list(_stage(stage, "", shape, ACTIVATIONS[activation]))
    return layers[-1].shape, sum((layer.cost for layer in layers), NOTHING)


def _end(
    architecture: Architecture, maps: Sequence[Shape], activation: Activation
) -> Iterator[Layer]:
    """Neck and head, on the maps that the stages put out."""
    if architecture.neck:
        neck, maps = _neck(architecture.neck, maps)
        yield neck
    yield _head(architecture, maps, activation)


def settings(gene: Gene, *without: str) -> dict[str, Any]:
    """What a gene says to its operator: its values but its kind and what is absent."""
    return dict(_settings(gene, without))


@lru_cache(maxsize=1 << 10)
def _settings(gene: Gene, without: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    left_out = {"kind", *without}
    return tuple((name, v) for name, v in gene if v is not None and name not in left_out)


def _stem(architecture: Architecture, shape: Shape, activation: Activation) -> Iterator[Layer]:
    gene = architecture.stem
    widths = (*(gene.before or ()), gene.width)
    single = len(widths) == 1 and gene.pool is None
    module, formula = (BareStem, conv_cost) if gene.bare else (Stem, conv_norm_cost)
    active: dict[str, Any] = {} if gene.bare else {"activation": activation}
    if gene.padding:
        active["conv"] = SameConvNorm
    for index, width in enumerate(widths):
        stride = gene.stride if index == 0 else 1
        conv = part(module, shape.channels, width, kernel=gene.kernel, stride=stride, **active)
        cost = formula(shape, width, kernel=gene.kernel, stride=stride)
        shape = shape.strided(width, stride)
        yield Layer("stem" if single else f"stem.{index}", conv, shape, cost)
    if gene.pool:
        pooled = shape.strided(gene.width, 2)
        yield Layer(f"stem.{len(widths)}", part(nn.MaxPool2d, 3, 2, 1), pooled, NOTHING)


def _stage(stage: Stage, name: str, shape: Shape, activation: Activation) -> Iterator[Layer]:
    """The blocks, or a cross-stage partial stage around them, and what ends the stage."""
    walk = _cross if stage.cross else _blocks
    for layer in walk(stage, name, shape, activation):
        yield layer
        shape = layer.shape
    index = 1 if stage.cross else stage.depth
    if stage.after:
        attend, cost = _attention(stage.after, shape)
        yield Layer(f"{name}.{index}", attend, shape, cost)
        index += 1
    if stage.transition:
        outputs = stage.compressed(shape.channels)
        thin = part(Transition, shape.channels, outputs, activation=activation)
        cost = transition_cost(shape, outputs)
        yield Layer(f"{name}.{index}", thin, shape.strided(outputs, 2), cost)


def _cross(stage: Stage, name: str, shape: Shape, activation: Activation) -> Iterator[Layer]:
    gene = stage.cross
    assert gene is not None

    def conv(role: str, inputs: Shape, outputs: int, **options: int) -> Layer:
        options = {"kernel": 1, **options}
        parts = part(ConvNorm, inputs.channels, outputs, **options), Part(activation)
        linear = role == "expand" and gene.linear
        step = parts[0] if linear else part(nn.Sequential, *parts)
        out = inputs.strided(outputs, options.get("stride", 1))
        return Layer(f"{name}.0.{role}", step, out, conv_norm_cost(inputs, outputs, **options))

    if stage.stride == 1:
        yield Layer(f"{name}.0.down", Part(nn.Identity), shape, NOTHING)
    else:
        outputs = gene.output if gene.grows else shape.channels
        groups = getattr(stage.block, "groups", None) or 1
        down = conv("down", shape, outputs, kernel=3, stride=stage.stride, groups=groups)
        yield down
        shape = down.shape
    yield conv("expand", shape, gene.expand)
    inner = half = shape._replace(channels=gene.expand // 2)
    for layer in _blocks(stage, f"{name}.0.blocks", half, activation):
        yield layer
        inner = layer.shape
    yield conv("partial", inner, half.channels)
    yield conv("join", shape._replace(channels=gene.expand), gene.output)


def _blocks(stage: Stage, name: str, shape: Shape, activation: Activation) -> Iterator[Layer]:
    for index, fusion in enumerate(stage.fusion):
        stride = stage.stride if index == 0 and not stage.cross else 1
        layer = _block(
            _Site(
                shape,
                stride,
                stage.join(index, shape.channels),
                stage.width or 1,
                stage.middle(fusion),
                stage.block,
                fusion,
                stage.shortcut,
                stage.attention,
                activation,
            )
        )
        yield layer._replace(name=f"{name}.{index}")
        shape = layer.shape


class _Site(NamedTuple):
    """All that a block depends on: the map that comes, what meets, and the genes that matter.

    `middle` are channels and groups of a bottleneck's middle convolution.
    """

    shape: Shape
    stride: int
    join: Join
    width: int
    middle: tuple[int, int] | None
    block: Block
    fusion: Fusion
    shortcut: str | None
    attention: Attention | None
    activation: Activation

    @property
    def order(self) -> str:
        return BLOCKS[self.block.kind].order


# fitting a network to a budget prices the same block again and again; larger ones fill in a search
# of hundreds of networks with what no other network has, and are no faster
@lru_cache(maxsize=1 << 10)
def _block(site: _Site) -> Layer:
    """One block and its skip, without a name."""
    shape, join, activation = site.shape, site.join, site.activation
    out = shape.strided(join.out, site.stride)
    transform, cost = _transform(site)
    if site.order == "shared":
        cost += norm_cost(shape)
    if join.shortcut is None:
        return Layer("", _alone(site, transform), out, cost)
    shortcut, shortcut_cost = _shortcut(site, join.shortcut)
    fusion, fusion_cost = _fusion(site.fusion, out._replace(channels=site.width))
    # without a shortcut the operator takes the map as it is
    other = {} if shortcut.module is nn.Identity else {"shortcut": shortcut}
    paths = {"transform": transform, **other, "fusion": fusion}
    if site.order == "shared":
        projects = shortcut.module not in (nn.Identity, Halve, Pad)
        skip = part(PreactSkip, shape.channels, projects=projects, **paths, activation=activation)
    else:
        after = activation if site.order == "after" else nn.Identity
        skip = part(Skip, **paths, activation=after)
    return Layer("", skip, out, cost + shortcut_cost + fusion_cost)


def _alone(site: _Site, transform: Part) -> Part:
    """A block without a skip: the transform, with the norm and activations it would have there."""
    active = Part(site.activation)
    match site.order:
        case "after":
            return part(nn.Sequential, transform, active)
        case "shared":
            norm = part(nn.BatchNorm2d, site.shape.channels)
            return part(nn.Sequential, norm, active, transform)
    return transform


def _transform(site: _Site) -> tuple[Part, Cost]:
    """The block's own operator, and the attention that ends it."""
    row, shape, outputs = BLOCKS[site.block.kind], site.shape, site.join.transform
    genes = settings(site.block, "groups", "group_width", "padding")
    if site.middle:
        genes["inner"], genes["groups"] = site.middle
    cost = row.cost(shape, outputs, site.stride, **genes)
    if getattr(site.block, "padding", None):
        genes["conv"] = SameConvNorm
    genes = {"stride": site.stride, **genes, "activation": site.activation}
    block = part(row.module, shape.channels, outputs, **genes)
    if site.attention is None:
        return block, cost
    attend, attention_cost = _attention(site.attention, shape.strided(outputs, site.stride))
    return part(nn.Sequential, block, attend), cost + attention_cost


def _shortcut(site: _Site, outputs: int) -> tuple[Part, Cost]:
    """The cheapest path to a map of this size, or the one that the stage asks for."""
    shape, stride, channels = site.shape, site.stride, site.shape.channels
    same = outputs == channels and not site.join.projects
    if same and stride == 1:
        return Part(nn.Identity), NOTHING
    if site.shortcut == "padded":
        return part(Pad, channels, outputs, stride=stride), NOTHING
    if same:
        return Part(Halve), pool_cost(shape, stride)
    if site.shortcut == "pooled" and stride == 2:
        half = site._replace(shape=shape.strided(channels, 2), stride=1)
        conv, cost = _projection(half, outputs)
        return part(nn.Sequential, Part(Halve), conv), cost + pool_cost(shape, 2)
    return _projection(site, outputs)


def _projection(site: _Site, outputs: int) -> tuple[Part, Cost]:
    """A 1 x 1 convolution, normalised where the block's convolutions are."""
    shape, stride, channels = site.shape, site.stride, site.shape.channels
    match site.order:
        case "shared":
            conv = part(nn.Conv2d, channels, outputs, 1, stride, bias=False)
            return conv, conv_cost(shape, outputs, 1, stride=stride)
        case "own":
            options = {"kernel": 1, "stride": stride}
            conv = part(NormConv, channels, outputs, **options, activation=site.activation)
            return conv, norm_conv_cost(shape, outputs, **options)
    conv = part(ConvNorm, channels, outputs, kernel=1, stride=stride)
    return conv, conv_norm_cost(shape, outputs, kernel=1, stride=stride)


def _attention(gene: Gene, shape: Shape) -> tuple[Part, Cost]:
    row, options = ATTENTIONS[gene.kind], settings(gene)  # type: ignore[attr-defined]
    return part(row.module, shape.channels, **options), row.cost(shape, **options)


def _fusion(gene: Fusion, shape: Shape, inputs: int = 2) -> tuple[Part, Cost]:
    """The operator that joins `inputs` maps of this shape, binary ones one after the other."""
    row, options = FUSIONS[gene.kind], settings(gene)
    if inputs > 2 and row.joins == "told":
        options["inputs"] = inputs
    sizes = (shape.channels,) if row.sized else ()
    fusion, cost = part(row.module, *sizes, **options), row.cost(shape, **options)
    if inputs == 2 or row.joins != "two":
        return fusion, cost
    links = inputs - 1
    return part(Chain, fusions=(fusion,) * links), Cost(*(links * number for number in cost))


def _neck(gene: Neck, maps: Sequence[Shape]) -> tuple[Layer, tuple[Shape, ...]]:
    """The neck on the last stages' maps, and the maps that it hands to the head."""
    if isinstance(gene, Late):
        late = tuple(maps[-gene.levels :])
        return Layer("neck", Part(nn.Identity), late[-1], NOTHING), late
    shapes = tuple(maps[-1:] if isinstance(gene, SPP) else maps[-gene.levels :])
    row, options = NECKS[gene.kind], settings(gene, "levels", "width", "fusion")
    planned = row.plan(shapes, gene.width, **options)
    cost = planned.cost
    if isinstance(gene, Pyramid | BiFPN | Hyper):
        met = [_fusion(gene.fusion, meeting.shape, meeting.inputs) for meeting in planned.meetings]
        fusions = tuple(fusion for fusion, _ in met)
        if row.joins == "fusions":
            options["fusions"] = fusions
        else:
            options["fusion"] = fusions[0]
        cost = sum((price for _, price in met), cost)
    neck = part(row.module, tuple(shape.channels for shape in shapes), gene.width, **options)
    return Layer("neck", neck, planned.outputs[-1], cost), planned.outputs


def _head(architecture: Architecture, maps: Sequence[Shape], activation: Activation) -> Layer:
    gene, classes, neck = architecture.head, architecture.classes, architecture.neck
    out = Shape(classes, 1, 1)
    if neck and neck.kind in SEVERAL_MAPS:
        channels = tuple(shape.channels for shape in maps)
        module, price = (
            (LateHead, late_head_cost) if neck.kind == "late" else (LevelsHead, levels_head_cost)
        )
        return Layer("head", part(module, channels, classes), out, price(channels, classes))
    row, options = HEADS[gene.kind], settings(gene, "activation")
    cost = row.cost(maps[-1], classes, **options)
    if row.activated:
        own = getattr(gene, "activation", None)
        options["activation"] = ACTIVATIONS[own] if own else activation
    return Layer("head", part(row.module, maps[-1].channels, classes, **options), out, cost)
