"""Stages: what a network's document says between image and head, and the channels it implies."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from nasfuse.genes import (
    GROWING,
    Attention,
    Block,
    Depth,
    Fusion,
    Gene,
    Grouped,
    Kernel,
    PlainFusion,
    Share,
    Stride,
    Width,
)

# each step of a fit asks for them, and isinstance, which asks pydantic, takes several times as long
_GROUPED = frozenset(get_args(Grouped))


class Stem(Gene):
    """The first convolution, from the image's channels, then norm and activation.

    `before` are widths of convolutions in front of it (ResNet-D), the first of which takes the
    stride; `bare` leaves out norm and activation; `pool` is 3 x 3 with stride 2.
    """

    width: Width
    kernel: Kernel
    stride: Stride
    before: Annotated[tuple[Width, ...], Field(min_length=1, max_length=4)] | None = None
    bare: Literal[True] | None = None
    padding: Literal["same"] | None = None
    pool: Literal["max"] | None = None

    @model_validator(mode="after")
    def _is_one_way_to_say_it(self) -> Stem:
        if self.bare and (self.before or self.padding):
            raise ValueError("'bare' goes neither with 'before' nor with 'padding'")
        return self

    @property
    def total_stride(self) -> int:
        return self.stride * (2 if self.pool else 1)


class Cross(Gene):
    """A cross-stage partial stage: half of `expand` channels pass the blocks, half pass by.

    A strided 3 x 3 convolution keeps the channels (or takes them to `output` where it `grows`),
    1 x 1 goes to `expand` (without activation where it is `linear`); the two halves meet by
    concatenation and 1 x 1 to `output`. Wang et al. 2020, CSPNet, arXiv:1911.11929
    """

    expand: Annotated[int, Field(strict=True, ge=2, le=16384, multiple_of=2)]
    output: Width
    linear: Literal[True] | None = None
    grows: Literal[True] | None = None


class Transition(Gene):
    """norm, activation, 1 x 1 to `compression` times the channels, mean over 2 x 2 pixels."""

    compression: Share


class Join(NamedTuple):
    """Channels where a skip's paths meet: of the transform, of the shortcut, of what comes out.

    A shortcut of None is no skip: the transform passes alone. One that `projects` is a convolution
    even where shapes do not differ.
    """

    transform: int
    shortcut: int | None
    out: int
    projects: bool = False


class Stage(Gene):
    """`depth` blocks with one fusion each; the first one has the stride.

    `width` is what every fusion but `concat` puts out (`complex` twice as much, `dual_path` as much
    and all that it has added), `growth` what `concat` and `dual_path` add; each is left out where
    no fusion of the stage uses it. One fusion stands for `depth` equal ones. Where shapes differ,
    the shortcut is a 1 x 1 convolution (or a mean of 2 x 2 pixels where only the size differs);
    `pooled`: a mean before the convolution; `padded`: every second pixel, and channels of zeros;
    `equal`: no skip. `attention` ends every block's transform, `after` and then `transition` end
    the stage; `cross` puts the blocks into a cross-stage partial stage.
    """

    depth: Depth
    stride: Stride
    block: Block
    fusion: Annotated[tuple[Fusion, ...], Field(max_length=128)]
    width: Width | None = None
    growth: Width | None = None
    shortcut: Literal["pooled", "padded", "equal"] | None = None
    attention: Attention | None = None
    cross: Cross | None = None
    after: Attention | None = None
    transition: Transition | None = None

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
        if self.shortcut in ("equal", "padded") and any(f.kind in GROWING for f in self.fusion):
            raise ValueError(f"'shortcut: {self.shortcut}' needs fusions that keep the width")
        if self.shortcut == "pooled" and self.stride == 1:
            raise ValueError("'shortcut: pooled' has no effect at stride 1: leave it out")
        return self

    @model_validator(mode="after")
    def _groups_divide(self) -> Stage:
        if isinstance(self.block, Grouped) and self.block.groups and self.block.group_width:
            raise ValueError("'groups' and 'group_width' exclude each other")
        if (mistake := self._undivided()) is not None:
            raise ValueError(mistake)
        return self

    def _undivided(self) -> str | None:
        if not isinstance(self.block, Grouped):
            return None
        part = self.block.groups or self.block.group_width or 1
        for fusion in self.fusion:
            if self.inner(fusion) % part:
                name = "groups" if self.block.groups else "group_width"
                return (
                    f"'{name}: {part}' does not divide the {self.inner(fusion)} channels of the "
                    f"middle convolution ('inner: {self.block.inner:g}' of {self._base(fusion)})"
                )
        return None

    @property
    def keeps(self) -> bool:
        """Whether some fusion puts out the stage's width."""
        return any(fusion.kind != "concat" for fusion in self.fusion)

    @property
    def grows(self) -> bool:
        """Whether some fusion appends `growth` channels."""
        return any(fusion.kind in ("concat", "dual_path") for fusion in self.fusion)

    def _base(self, fusion: Gene) -> int:
        base = self.growth if fusion.kind == "concat" else self.width  # type: ignore[attr-defined]
        return base or 1

    def inner(self, fusion: Gene) -> int:
        """Channels of the middle convolution of a bottleneck whose skip has this fusion."""
        assert isinstance(self.block, Grouped)
        return max(1, round(self.block.inner * self._base(fusion)))

    def middle(self, fusion: Gene) -> tuple[int, int] | None:
        """Channels and groups of that convolution, None where the block has none."""
        if not isinstance(self.block, Grouped):
            return None
        inner, size = self.inner(fusion), self.block.group_width
        return inner, inner // size if size else self.block.groups or 1

    def entry(self, channels: int) -> tuple[int, int]:
        """Channels and stride that the first block meets, behind a cross stage's split."""
        return (self.cross.expand // 2, 1) if self.cross else (channels, self.stride)

    @property
    def demands(self) -> bool:
        """Whether there are widths, its own or of what comes to it, that it cannot have."""
        padded, grouped = self.shortcut == "padded", type(self.block) in _GROUPED
        return padded or grouped or self.cross is not None

    def misfit(self, channels: int) -> str | None:
        """Why the stage cannot be where so many channels come to it; None where it can."""
        if self._strided_groups_fail(channels):
            return (
                "the block's groups do not divide the channels of the cross stage's strided "
                "convolution"
            )
        if self.shortcut == "padded" and self.entry(channels)[0] > (self.width or 0):
            return "'shortcut: padded' cannot lose channels"
        return self._undivided()

    def _strided_groups_fail(self, channels: int) -> bool:
        """Whether a cross stage's strided convolution cannot have the groups of its blocks."""
        if self.cross is None or self.stride == 1:
            return False
        groups = getattr(self.block, "groups", None) or 1
        outputs = self.cross.output if self.cross.grows else channels
        return channels % groups != 0 or outputs % groups != 0

    def join(self, index: int, channels: int) -> Join:
        """What meets at the skip of block `index`, to which `channels` come."""
        width, growth = self.width or 0, self.growth or 0
        match self.fusion[index].kind:
            case "concat":
                return Join(growth, channels, channels + growth)
            case "complex":
                return Join(width, width, 2 * width)
            case "dual_path":
                # a stage's first block projects to the shared channels and two growths (DPN)
                fresh = index == 0 or channels < width
                kept = width + 2 * growth if fresh else channels
                return Join(width + growth, kept, kept + growth, projects=fresh)
        changed = channels != width or (index == 0 and self.stride != 1 and not self.cross)
        if self.shortcut == "equal" and changed:
            return Join(width, None, width)
        return Join(width, width, width)

    def idle_fusion(self, channels: int) -> Fusion | None:
        """What the document says for the first fusion where the first block has no skip.

        The fusion that follows, or `add` in a stage of one block. None where it has a skip.
        """
        if self.join(0, self.entry(channels)[0]).shortcut is not None:
            return None
        return self.fusion[1] if self.depth > 1 else PlainFusion(kind="add")

    def outputs(self, channels: int) -> int:
        """Channels of the stage's last map, where its first block gets `channels`."""
        inside, _ = self.entry(channels)
        for index in range(self.depth):
            inside = self.join(index, inside).out
        inside = self.cross.output if self.cross else inside
        return self.compressed(inside)

    def compressed(self, channels: int) -> int:
        """Channels behind the transition, rounded down as DenseNet does."""
        if self.transition is None:
            return channels
        return max(1, int(self.transition.compression * channels + 1e-9))

    @property
    def total_stride(self) -> int:
        return self.stride * (2 if self.transition else 1)
