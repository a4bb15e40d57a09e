"""Architecture: one network as a frozen document, equal by content, named by its hash."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nasfuse.documents import printable, read_document
from nasfuse.errors import DocumentError
from nasfuse.genes import SEVERAL_MAPS, Activation, Gene, Head, Neck
from nasfuse.names import nearest
from nasfuse.stages import Stage, Stem

Factor = Annotated[float, Field(ge=1.0, le=4.0)]


class Architecture(Gene):
    """One network, completely. Equal architectures build equal networks.

    `resolution` is the side of the square image it takes, `channels` the image's channels;
    `norm_eps` is the epsilon of every batch norm where it is not 1e-5.
    """

    resolution: Annotated[int, Field(strict=True, ge=4, le=2048)]
    channels: Annotated[int, Field(strict=True, ge=1, le=64)]
    classes: Annotated[int, Field(strict=True, ge=2, le=100_000)]
    activation: Activation
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] | None = None
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]
    neck: Neck | None = None
    head: Head

    @model_validator(mode="after")
    def _no_map_starves(self) -> Architecture:
        side = -(-self.resolution // self.stem.total_stride)
        for number, stage in enumerate(self.stages):
            side = -(-side // stage.total_stride)
            if side < 2:
                raise ValueError(
                    f"stages.{number} would put out a {side}x{side} map: use fewer stages with "
                    f"stride 2, or a resolution above {self.resolution}"
                )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Architecture:
        if (mistake := self.misfit()) is not None:
            raise ValueError(mistake)
        for number, (stage, channels) in enumerate(self.entries()):
            idle = stage.idle_fusion(channels)
            if idle is not None and stage.fusion[0] != idle:
                raise ValueError(
                    f"stages.{number}.fusion.0 has no effect, because shapes differ there and "
                    f"'shortcut: equal' has no skip then: make it '{idle.kind}'"
                )
        return self

    @model_validator(mode="after")
    def _neck_fits(self) -> Architecture:
        levels = getattr(self.neck, "levels", 1)
        if levels > len(self.stages):
            raise ValueError(f"a neck of {levels} levels needs as many stages")
        if self.neck and self.neck.kind in SEVERAL_MAPS and self.head.kind != "mean":
            raise ValueError(f"head '{self.head.kind}' takes one map, and the neck has {levels}")
        return self

    def entries(self) -> Iterator[tuple[Stage, int]]:
        """Each stage with the channels that come to it."""
        channels = self.stem.width
        for stage in self.stages:
            yield stage, channels
            channels = stage.outputs(channels)

    def misfit(self) -> str | None:
        """The first stage whose widths do not go with what comes to it, and why; None if all do.

        A copy with other widths has not been checked, and this takes less time than all rules.
        """
        if any(stage.demands for stage in self.stages):
            for number, (stage, channels) in enumerate(self.entries()):
                if (reason := stage.misfit(channels)) is not None:
                    return f"stages.{number}: {reason}"
        return None

    def settled(self) -> Architecture:
        """The same network, with the fusions that cannot matter as the document wants them."""
        stages = []
        channels = self.stem.width
        for stage in self.stages:
            idle = stage.idle_fusion(channels)
            if idle is not None and stage.fusion[0] != idle:
                stage = stage.model_copy(update={"fusion": (idle, *stage.fusion[1:])})
            stages.append(stage)
            channels = stage.outputs(channels)
        return self.model_copy(update={"stages": tuple(stages)})

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
        """The kind of every skip's fusion, from input to output."""
        return tuple(
            fusion.kind
            for stage, channels in self.entries()
            for fusion in stage.fusion[stage.idle_fusion(channels) is not None :]
        )


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
        mistakes = error.errors(include_url=False)
        meant = next(filter(None, (_meant(one, mistakes) for one in mistakes)), None)
        path = ".".join(str(part) for part in mistakes[0]["loc"]) or "the document"
        why = mistakes[0]["msg"].removeprefix("Value error, ")
        raise DocumentError(
            f"this is not an architecture: {printable(path)}",
            where=where,
            why=f"{printable(why)} ({len(mistakes)} in all)",
            fix=meant or "nasfuse spaces --example   prints a complete one",
        ) from None


def _meant(mistake: ErrorDetails, mistakes: Sequence[ErrorDetails]) -> str | None:
    """The name that a misspelt one is near to, if that is the mistake."""
    place, given, said = mistake["loc"], mistake["input"], mistake.get("ctx", {})
    match mistake["type"]:
        case "extra_forbidden":  # the name that is missing at the same place
            word = str(place[-1])
            lacking = [one["loc"] for one in mistakes if one["type"] == "missing"]
            names = [str(loc[-1]) for loc in lacking if loc[:-1] == place[:-1]]
        case "union_tag_not_found":
            names = re.findall(r"'(\w+)'", str(said["discriminator"]))
            word = next((name for name in given if nearest(name, names)), "")
        case "union_tag_invalid" | "literal_error":
            word = str(said.get("tag", given))
            names = re.findall(r"'(\w+)'", str(said.get("expected_tags", said.get("expected"))))
        case _:
            return None
    near = nearest(word, names)
    return f"{near}   in place of {printable(word)}" if near else None


def read_architecture(path: Path) -> Architecture:
    """The architecture in a JSON or YAML file."""
    return parse_architecture(read_document(path), where=str(path))
