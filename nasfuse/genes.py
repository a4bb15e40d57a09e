"""Genes: the parts of an architecture's document, each frozen and strict about unknown names.

Genes have no defaults: a stored architecture never changes its meaning. What is absent is not
there (`se` without squeeze-and-excitation), and what cannot matter has to be left out, so that
equal networks are equal documents.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Kernel = Literal[1, 3, 5, 7]
Stride = Literal[1, 2]
Depth = Annotated[int, Field(strict=True, ge=1, le=128)]
Width = Annotated[int, Field(strict=True, ge=1, le=16384)]
Count = Annotated[int, Field(strict=True, ge=1, le=1024)]
Expansion = Annotated[int, Field(strict=True, ge=1, le=16)]
Share = Annotated[float, Field(gt=0, le=1)]
Activation = Literal["relu", "relu6", "leaky_relu", "silu", "gelu", "elu", "hard_swish"]

# fusions whose output is wider than the stage's width
GROWING = frozenset({"concat", "dual_path", "complex"})


class Gene(BaseModel):
    """Frozen, hashable, strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlainFusion(Gene):
    """A fusion without settings of its own; `ops/joining.py` has the formulas."""

    kind: Literal[
        "add",
        "multiply",
        "max",
        "modulus",
        "complex",
        "weighted",
        "fast_normalised",
        "softmax",
        "concat",
        "concat_conv",
        "concat_linear",
        "norm_concat",
        "dual_path",
        "gated",
        "shortcut_gated",
        "asff",
    ]


class AttentionalFusion(Gene):
    """A fusion with attention, whose bottleneck has width / reduction channels."""

    kind: Literal["se", "sk", "ms_cam", "cross_attention"]
    reduction: Count


class AFF(Gene):
    """Attentional feature fusion; `scale` 2 is that of the authors' code, absent the paper's."""

    kind: Literal["aff"]
    reduction: Count
    scale: Literal[2] | None = None


class IterativeAFF(Gene):
    """AFF twice; `shared` is the authors' PyTorch port, which uses one global branch twice."""

    kind: Literal["iaff"]
    reduction: Count
    shared: Literal[True] | None = None


def _named(value: object) -> object:
    """`add` is short for `{kind: add}`."""
    return {"kind": value} if isinstance(value, str) else value


Fusion = Annotated[
    Annotated[PlainFusion | AttentionalFusion | AFF | IterativeAFF, Field(discriminator="kind")],
    BeforeValidator(_named),
]


class ChannelAttention(Gene):
    """Attention on one map, with a bottleneck of channels / reduction."""

    kind: Literal["se", "cbam", "bam"]
    reduction: Count


class PlainAttention(Gene):
    """Attention on one map, without settings."""

    kind: Literal["eca", "non_local"]


Attention = Annotated[
    Annotated[ChannelAttention | PlainAttention, Field(discriminator="kind")],
    BeforeValidator(_named),
]


class Basic(Gene):
    """Two k x k convolutions: ResNet's basic block, or the same with norm and activation first."""

    kind: Literal["residual", "preact"]
    kernel: Kernel


class Bottleneck(Gene):
    """1 x 1, k x k, 1 x 1 convolutions; the middle one has `inner` times the stage's width.

    At a `concat` skip it has `inner` times the growth. Its channels fall into `groups` groups, or
    into groups of `group_width` channels; one of the two may be given. `preact_bottleneck` and
    `dual_path` normalise before each convolution.
    """

    kind: Literal["bottleneck", "preact_bottleneck", "dual_path"]
    kernel: Kernel
    inner: Annotated[float, Field(gt=0, le=8)]
    groups: Count | None = None
    group_width: Count | None = None


class SelectiveBottleneck(Gene):
    """A bottleneck with two k x k convolutions, one dilated, fused by selective kernels."""

    kind: Literal["sk_bottleneck"]
    kernel: Kernel
    inner: Annotated[float, Field(gt=0, le=8)]
    reduction: Count
    groups: Count | None = None
    group_width: Count | None = None


class RegNet(Gene):
    """RegNet's bottleneck, squeezed to the block's input channels / `se` (Y), or not at all (X)."""

    kind: Literal["regnet"]
    kernel: Kernel
    inner: Annotated[float, Field(gt=0, le=8)]
    groups: Count | None = None
    group_width: Count | None = None
    se: Count | None = None


class MBConv(Gene):
    """Inverted bottleneck, `fused`: with one k x k convolution for the first two.

    `se` is the reduction of squeeze-and-excitation from the block's input channels, absent without
    it; `padding: same` pads as TensorFlow does, more after than before where the stride is 2.
    """

    kind: Literal["mbconv", "fused_mbconv"]
    kernel: Kernel
    expand: Expansion
    se: Count | None = None
    padding: Literal["same"] | None = None


class Dense(Gene):
    """DenseNet's layer: k x k, after 1 x 1 to `bottleneck` times the output (B) where given."""

    kind: Literal["dense"]
    kernel: Kernel
    bottleneck: Expansion | None = None


Block = Annotated[
    Basic | Bottleneck | SelectiveBottleneck | RegNet | MBConv | Dense, Field(discriminator="kind")
]
Grouped = Bottleneck | SelectiveBottleneck | RegNet


def _keeps_width(fusion: Fusion) -> Fusion:
    if fusion.kind in GROWING:
        raise ValueError(f"'{fusion.kind}' does not keep the width, as a neck's fusions have to")
    return fusion


SteadyFusion = Annotated[Fusion, AfterValidator(_keeps_width)]
Levels = Annotated[int, Field(strict=True, ge=2, le=8)]


class Pyramid(Gene):
    """A feature pyramid over the last `levels` stages: one map of `width` channels a level."""

    kind: Literal["fpn", "pan"]
    levels: Levels
    width: Width
    fusion: SteadyFusion


class BiFPN(Gene):
    """EfficientDet's pyramid, top-down and bottom-up `repeats` times."""

    kind: Literal["bifpn"]
    levels: Levels
    width: Width
    repeats: Annotated[int, Field(strict=True, ge=1, le=16)]
    fusion: SteadyFusion


class Hyper(Gene):
    """Early fusion: the last `levels` maps, brought to one size, become one map."""

    kind: Literal["hyper"]
    levels: Levels
    width: Width
    fusion: SteadyFusion


class ASFF(Gene):
    """Adaptively spatial feature fusion: at each level, all levels weighted at each pixel."""

    kind: Literal["asff"]
    levels: Levels
    width: Width


class Late(Gene):
    """No neck: a prediction from each of the last `levels` maps, averaged."""

    kind: Literal["late"]
    levels: Levels


class SPP(Gene):
    """Spatial pyramid pooling of the last map, back to `width` channels."""

    kind: Literal["spp"]
    width: Width


Neck = Annotated[Pyramid | BiFPN | ASFF | Hyper | Late | SPP, Field(discriminator="kind")]
# necks that hand all levels to the head
SEVERAL_MAPS = frozenset({"fpn", "pan", "bifpn", "asff", "late"})


class MeanHead(Gene):
    """Mean over the map (of all levels, side by side, behind a neck of several), then linear."""

    kind: Literal["mean"]


class NormHead(Gene):
    """Batch norm, activation (the network's where none is given), mean over the map, linear."""

    kind: Literal["norm"]
    activation: Activation | None = None


class ConvHead(Gene):
    """1 x 1 convolution to `width`, batch norm, activation, mean over the map, linear."""

    kind: Literal["conv"]
    width: Width


Head = Annotated[MeanHead | NormHead | ConvHead, Field(discriminator="kind")]
