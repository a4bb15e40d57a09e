"""Architecture: one network as a frozen document, equal by content, named by its hash.

Genes have no defaults: a stored architecture never changes its meaning. What cannot matter is
left out, so that equal networks are equal documents with equal keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nasfuse.errors import DocumentError

MAX_FILE_BYTES = 1_000_000

Kernel = Literal[1, 3, 5, 7]
Stride = Literal[1, 2]
Depth = Annotated[int, Field(strict=True, ge=1, le=128)]
Width = Annotated[int, Field(strict=True, ge=1, le=16384)]
Factor = Annotated[float, Field(ge=1.0, le=4.0)]
Reduction = Annotated[int, Field(strict=True, ge=1, le=1024)]


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
        "weighted",
        "fast_normalised",
        "softmax",
        "concat",
        "concat_conv",
        "concat_linear",
        "norm_concat",
        "gated",
        "shortcut_gated",
    ]


class AttentionalFusion(Gene):
    """A fusion with attention, whose bottleneck has width / reduction channels."""

    kind: Literal["se", "sk", "ms_cam", "aff", "iaff"]
    reduction: Reduction


def _named(value: object) -> object:
    """`add` is short for `{kind: add}`."""
    return {"kind": value} if isinstance(value, str) else value


Fusion = Annotated[
    Annotated[PlainFusion | AttentionalFusion, Field(discriminator="kind")], BeforeValidator(_named)
]


class Residual(Gene):
    """Two k x k convolutions (ResNet's basic block)."""

    kind: Literal["residual"]
    kernel: Kernel


class MBConv(Gene):
    """Inverted bottleneck; `se` is the reduction of squeeze-and-excitation, absent without it."""

    kind: Literal["mbconv"]
    kernel: Kernel
    expand: Annotated[int, Field(strict=True, ge=1, le=16)]
    se: Reduction | None = None


class Dense(Gene):
    """DenseNet-B's layer: a 1 x 1 convolution to `bottleneck` times the output, then k x k."""

    kind: Literal["dense"]
    kernel: Kernel
    bottleneck: Annotated[int, Field(strict=True, ge=1, le=16)]


Block = Annotated[Residual | MBConv | Dense, Field(discriminator="kind")]


class Stem(Gene):
    """The first convolution, from the image's channels."""

    width: Width
    kernel: Kernel
    stride: Stride


class Stage(Gene):
    """`depth` blocks with one fusion each; the first one has the stride.

    `width` is what every fusion but `concat` puts out, `growth` what `concat` adds; each is left
    out where no fusion of the stage uses it. One fusion stands for `depth` equal ones.
    """

    depth: Depth
    stride: Stride
    block: Block
    fusion: tuple[Fusion, ...]
    width: Width | None = None
    growth: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_fusion_for_all(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("fusion"), str | dict):
            depth = value.get("depth")
            count = depth if isinstance(depth, int) and 1 <= depth <= 128 else 1
            return {**value, "fusion": [value["fusion"]] * count}
        return value

    @model_validator(mode="after")
    def _says_what_it_needs(self) -> Stage:
        if len(self.fusion) != self.depth:
            raise ValueError(f"{len(self.fusion)} fusions for a depth of {self.depth}")
        for name, used in (("width", self.keeps), ("growth", self.grows)):
            if used and getattr(self, name) is None:
                raise ValueError(f"'{name}' is missing, and the fusions of this stage need it")
            if not used and getattr(self, name) is not None:
                raise ValueError(f"'{name}' has no effect with these fusions: leave it out")
        return self

    @property
    def keeps(self) -> bool:
        """Whether some fusion puts out the stage's width."""
        return any(fusion.kind != "concat" for fusion in self.fusion)

    @property
    def grows(self) -> bool:
        """Whether some fusion appends `growth` channels."""
        return any(fusion.kind == "concat" for fusion in self.fusion)


class NormHead(Gene):
    """Batch norm, activation, mean over the map, linear."""

    kind: Literal["norm"]


class ConvHead(Gene):
    """1 x 1 convolution to `width`, batch norm, activation, mean over the map, linear."""

    kind: Literal["conv"]
    width: Width


class Architecture(Gene):
    """One network, completely. Equal architectures build equal networks.

    `resolution` is the side of the square image it takes, `channels` the image's channels.
    """

    resolution: Annotated[int, Field(strict=True, ge=4, le=2048)]
    channels: Annotated[int, Field(strict=True, ge=1, le=64)]
    classes: Annotated[int, Field(strict=True, ge=2, le=100_000)]
    activation: Literal["relu", "silu"]
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]
    head: Annotated[NormHead | ConvHead, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _no_map_starves(self) -> Architecture:
        side = -(-self.resolution // self.stem.stride)
        for number, stage in enumerate(self.stages):
            side = -(-side // stage.stride)
            if side < 2:
                raise ValueError(
                    f"stages.{number} would put out a {side}x{side} map: use fewer stages with "
                    f"stride 2, or a resolution above {self.resolution}"
                )
        return self

    @property
    def key(self) -> str:
        """Twelve hex digits of its content: its name in every log, file and plot."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def document(self) -> dict[str, Any]:
        """As plain values, without what is absent."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_json(self, indent: int | None = None) -> str:
        """Canonical JSON: equal architectures give equal text."""
        return json.dumps(self.document(), indent=indent)

    @property
    def fusions(self) -> tuple[str, ...]:
        """The kind of every fusion, from input to output."""
        return tuple(fusion.kind for stage in self.stages for fusion in stage.fusion)


class Scaling(Gene):
    """The direction of compound scaling: depth by alpha, width by beta, resolution by gamma.

    The three are brought to the same alpha * beta^2 * gamma^2 = 2 along their direction, so that
    the coefficient phi counts doublings of the MACs. Tan & Le 2019, arXiv:1905.11946
    """

    alpha: Factor
    beta: Factor
    gamma: Factor

    @model_validator(mode="after")
    def _grows(self) -> Scaling:
        if self.alpha == self.beta == self.gamma == 1:
            raise ValueError("alpha, beta and gamma are all 1: nothing would be scaled")
        return self

    def at(self, phi: float) -> tuple[float, float, float]:
        """Factors of depth, width and resolution that multiply the MACs by about 2^phi."""
        doublings = math.log2(self.alpha * self.beta**2 * self.gamma**2)
        power = phi / doublings
        return self.alpha**power, self.beta**power, self.gamma**power


def parse_architecture(document: object, *, where: str) -> Architecture:
    """The architecture a document describes; `where` names its origin in the error.

    Raises:
        DocumentError: with the path and the reason of the first thing that is wrong.
    """
    try:
        return Architecture.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DocumentError(
            f"this is not an architecture: {path}",
            where=where,
            why=f"{first['msg'].removeprefix('Value error, ')} ({error.error_count()} in all)",
            fix="nasfuse spaces --example   prints a complete one",
        ) from None


def read_document(path: Path) -> object:
    """The plain values in a JSON or YAML file of at most 1 MB.

    Raises:
        DocumentError: the file cannot be read, is too large, or is not JSON or YAML.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DocumentError("this file is too large", where=str(path), why="the limit is 1 MB")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DocumentError("this file cannot be read", where=str(path), why=reason) from None


def read_architecture(path: Path) -> Architecture:
    """The architecture in a JSON or YAML file."""
    return parse_architecture(read_document(path), where=str(path))
