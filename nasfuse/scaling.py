"""Compound scaling, and fitting a network to a budget by solving for its coefficient.

Tan & Le 2019, EfficientNet, arXiv:1905.11946: depth, width and resolution grow together as
alpha^phi, beta^phi and gamma^phi.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from nasfuse.architecture import Architecture, ConvHead, Scaling, Stage
from nasfuse.costs import show_macs
from nasfuse.errors import BudgetError
from nasfuse.network import cost

G = TypeVar("G", bound=BaseModel)
MAX_DEPTH, MAX_WIDTH, MAX_RESOLUTION = 32, 2048, 1024
_PHI = (-24.0, 24.0)


def round_width(width: float, divisor: int = 8) -> int:
    """To a multiple of the divisor, never below it nor below 0.9 times the width (as published).

    Narrow maps take a finer step: multiples of 4 below 32, unless the divisor says otherwise.
    """
    step = min(divisor, 4) if width < 32 else divisor
    rounded = max(step, int(width + step / 2) // step * step)
    return min(MAX_WIDTH, rounded + step if rounded < 0.9 * width else rounded)


def scale(
    architecture: Architecture, *, depth: float = 1, width: float = 1, resolution: float = 1
) -> Architecture:
    """Every stage deeper and wider by the factors, at a larger resolution.

    Depths are rounded up (as published), widths to multiples of 8, the resolution to multiples of
    4. A deeper stage repeats its fusions in their order. Factors of 1 change nothing but rounding.
    """
    side = max(_smallest_side(architecture), round(architecture.resolution * resolution / 4) * 4)
    head = architecture.head
    changed: dict[str, Any] = {
        "resolution": min(MAX_RESOLUTION, side),
        "stem": _resized(architecture.stem, width=round_width(architecture.stem.width * width)),
        "stages": tuple(_scale_stage(s, depth, width) for s in architecture.stages),
    }
    if isinstance(head, ConvHead):
        changed["head"] = _resized(head, width=round_width(head.width * width))
    return _resized(architecture, **changed)


def _resized(gene: G, **changed: Any) -> G:
    return gene.model_copy(update=changed)


def _smallest_side(architecture: Architecture) -> int:
    """The side at which the last map still has 2 pixels a side, in multiples of 4."""
    stride = architecture.stem.stride * math.prod(s.stride for s in architecture.stages)
    return -(-2 * stride // 4) * 4


def _scale_stage(stage: Stage, depth: float, width: float) -> Stage:
    # the tolerance keeps a depth whose factor is 1 but for rounding errors from growing by one
    deep = min(MAX_DEPTH, max(1, math.ceil(stage.depth * depth - 1e-9)))
    changed: dict[str, Any] = {"depth": deep}
    changed["fusion"] = tuple(stage.fusion[i * stage.depth // deep] for i in range(deep))
    kinds = {fusion.kind for fusion in changed["fusion"]}
    changed["growth"] = changed["width"] = None
    if stage.growth is not None and "concat" in kinds:
        changed["growth"] = round_width(stage.growth * width, 4)
    if stage.width is not None and kinds != {"concat"}:
        changed["width"] = round_width(stage.width * width)
    return _resized(stage, **changed)


def fit_to_budget(architecture: Architecture, scaling: Scaling, macs: int) -> Architecture:
    """The largest scaled network whose MACs, by our count and by thop's, are at most `macs`.

    First the compound coefficient is solved for, then the widths alone take up what rounding of
    depth and resolution left, all together and then one by one from the last stage to the first.

    Raises:
        BudgetError: even the smallest network in this direction costs more.
    """

    def scaled(phi: float) -> Architecture:
        depth, width, resolution = scaling.at(phi)
        return scale(architecture, depth=depth, width=width, resolution=resolution)

    smallest = cost(scaled(_PHI[0])).larger
    if smallest > macs:
        raise BudgetError(
            f"this network does not fit {show_macs(macs)} MACs",
            why=f"at its smallest it needs {show_macs(smallest)}",
            fix=f"--budget {math.ceil(smallest / 1e5) / 10:g}MFLOPs",
            needed=smallest,
        )
    fitted, _ = _largest(scaled, _PHI, macs)
    fitted, _ = _largest(lambda factor: scale(fitted, width=factor), (1.0, 1.6), macs)
    return _topped_up(fitted, macs)


def _largest(
    make: Callable[[float], Architecture], span: tuple[float, float], macs: int
) -> tuple[Architecture, float]:
    """The last member of a family of growing networks that fits, by bisection."""
    low, high = span
    best = make(low)
    for _ in range(16):
        middle = (low + high) / 2
        network = make(middle)
        if cost(network).larger <= macs:
            low, best = middle, network
        else:
            high = middle
    return best, low


def _topped_up(architecture: Architecture, macs: int) -> Architecture:
    """Widen single stages by one step as long as some step still fits."""
    widened = True
    while widened:
        widened = False
        for wider in _wider(architecture):
            if cost(wider).larger <= macs:
                architecture, widened = wider, True
                break
    return architecture


def _wider(architecture: Architecture) -> Iterator[Architecture]:
    """Each network with one width a step larger, the last stage's first."""
    head, stages = architecture.head, architecture.stages
    if isinstance(head, ConvHead) and head.width < MAX_WIDTH:
        yield _resized(architecture, head=_resized(head, width=head.width + 8))
    for number in reversed(range(len(stages))):
        for name, step in (("width", 8), ("growth", 4)):
            value = getattr(stages[number], name)
            if value is not None and value < MAX_WIDTH:
                step = step if value >= 32 else 4
                stage = _resized(stages[number], **{name: value + step})
                changed = (*stages[:number], stage, *stages[number + 1 :])
                yield _resized(architecture, stages=changed)
