"""Where document and operators meet: an Architecture becomes a module, a price, a listing.

One walk, `plan`, derives every channel count. Building, pricing and writing the module's source
all follow from it, so they cannot disagree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasfuse.architecture import Architecture, ConvHead, Stage
from nasfuse.architecture import Fusion as FusionGene
from nasfuse.costs import NOTHING, Cost, Shape
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import HEADS
from nasfuse.ops.layers import (
    ACTIVATIONS,
    ConvNorm,
    Halve,
    Skip,
    Stem,
    conv_norm_cost,
    shortcut_cost,
)

Value = int | None | type[nn.Module]


class Part(NamedTuple):
    """A module to be: its class, its arguments by position and by name; some may be parts."""

    module: type[nn.Module]
    sizes: tuple[int, ...] = ()
    options: tuple[tuple[str, Value | Part], ...] = ()

    def build(self) -> nn.Module:
        options = {
            name: value.build() if isinstance(value, Part) else value
            for name, value in self.options
        }
        return self.module(*self.sizes, **options)


class Layer(NamedTuple):
    """One step of a network: its name in the module, what it is, puts out and costs."""

    name: str
    part: Part
    shape: Shape
    cost: Cost


class Network(nn.Module):
    """head(stages(stem(x))): images (batch, channels, side, side) to (batch, classes)."""

    def __init__(self, *, stem: nn.Module, stages: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(self.stem(x)))
        return out


def plan(architecture: Architecture) -> Iterator[Layer]:
    """The layers from image to classes: `stem`, `stages.0.0` and so on, `head`."""
    activation = ACTIVATIONS[architecture.activation]
    gene, side = architecture.stem, architecture.resolution
    image = Shape(architecture.channels, side, side)
    options = (("kernel", gene.kernel), ("stride", gene.stride), ("activation", activation))
    shape = image.strided(gene.width, gene.stride)
    cost = conv_norm_cost(image, gene.width, kernel=gene.kernel, stride=gene.stride)
    yield Layer("stem", Part(Stem, (image.channels, gene.width), options), shape, cost)
    for number, stage in enumerate(architecture.stages):
        for index, fusion in enumerate(stage.fusion):
            stride = stage.stride if index == 0 else 1
            layer = _skip(stage, fusion, shape, stride=stride, activation=activation)
            yield layer._replace(name=f"stages.{number}.{index}")
            shape = layer.shape
    yield _head(architecture, shape, activation)


def _skip(
    stage: Stage, fusion: FusionGene, shape: Shape, *, stride: int, activation: type[nn.Module]
) -> Layer:
    """One block: `concat` appends `growth` channels, any other fusion puts out `width`."""
    grows = fusion.kind == "concat"
    outputs = stage.growth if grows else stage.width
    assert outputs is not None  # the document was checked
    kept = shape.channels if grows else outputs
    met = shape.strided(kept, stride)
    block, row = BLOCKS[stage.block.kind], FUSIONS[fusion.kind]
    genes = stage.block.model_dump(exclude={"kind"})
    settings = fusion.model_dump(exclude={"kind"})
    transform = Part(
        block.module,
        (shape.channels, outputs),
        (("stride", stride), *genes.items(), ("activation", activation)),
    )
    part = Part(
        Skip,
        options=(
            ("transform", transform),
            ("shortcut", _shortcut(shape, kept, stride)),
            ("fusion", Part(row.module, (kept,) if row.sized else (), (*settings.items(),))),
            ("activation", Part(activation if block.activated else nn.Identity)),
        ),
    )
    cost = block.cost(shape, outputs, stride, **genes) + shortcut_cost(shape, kept, stride)
    out = met._replace(channels=kept + outputs if grows else outputs)
    return Layer("", part, out, cost + row.cost(met, **settings))


def _shortcut(shape: Shape, outputs: int, stride: int) -> Part:
    if outputs != shape.channels:
        return Part(ConvNorm, (shape.channels, outputs), (("kernel", 1), ("stride", stride)))
    return Part(nn.Identity) if stride == 1 else Part(Halve)


def _head(architecture: Architecture, shape: Shape, activation: type[nn.Module]) -> Layer:
    gene, row = architecture.head, HEADS[architecture.head.kind]
    width = {"width": gene.width} if isinstance(gene, ConvHead) else {}
    part = Part(
        row.module,
        (shape.channels, architecture.classes),
        (*width.items(), ("activation", activation)),
    )
    cost = row.cost(shape, architecture.classes, **width)
    return Layer("head", part, Shape(architecture.classes, 1, 1), cost)


def cost(architecture: Architecture) -> Cost:
    """MACs, parameters and thop's MACs of one image, in closed form: nothing is built."""
    return sum((layer.cost for layer in plan(architecture)), NOTHING)


def build(architecture: Architecture) -> Network:
    """The network with fresh weights, drawn from torch's global generator."""
    modules = {layer.name: layer.part.build() for layer in plan(architecture)}
    stages = (
        nn.Sequential(*(modules[f"stages.{number}.{index}"] for index in range(stage.depth)))
        for number, stage in enumerate(architecture.stages)
    )
    return Network(stem=modules["stem"], stages=nn.Sequential(*stages), head=modules["head"])


def _on_meta(architecture: Architecture) -> tuple[Network, Tensor]:
    side = architecture.resolution
    with torch.device("meta"):
        return build(architecture).eval(), torch.empty(1, architecture.channels, side, side)


def torch_cost(architecture: Architecture) -> tuple[int, int]:
    """MACs and parameters as torch counts them, on the meta device: no arithmetic is done."""
    network, image = _on_meta(architecture)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


def thop_macs(architecture: Architecture) -> int:
    """MACs as thop counts them, on the meta device.

    thop leaves buffers in the module that it measures, so it gets a throw-away one; its count of
    parameters is wrong for some modules and is not used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop compares versions by distutils
        import thop

    network, image = _on_meta(architecture)
    macs, _ = thop.profile(network, (image,), verbose=False)
    return int(macs)
