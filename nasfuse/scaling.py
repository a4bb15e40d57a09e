"""Compound scaling, and fitting a network to a budget by solving for its coefficient.

Tan & Le 2019, EfficientNet, arXiv:1905.11946: depth, width and resolution grow together as
alpha^phi, beta^phi and gamma^phi.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from nasfuse.architecture import Architecture, Scaling
from nasfuse.costs import Cost, enough_for, show_macs
from nasfuse.errors import BudgetError
from nasfuse.genes import ConvHead, Grouped
from nasfuse.network import cost
from nasfuse.stages import Stage

G = TypeVar("G", bound=BaseModel)
MAX_DEPTH, MAX_WIDTH, MAX_RESOLUTION = 32, 2048, 1024
_PHI = (-24.0, 24.0)


class Released(NamedTuple):
    """EfficientNet's coefficients as released: factors of B0's depth and width, and the side."""

    depth: float
    width: float
    resolution: int


# they do not follow alpha^phi exactly: github.com/tensorflow/tpu, efficientnet_builder.py
EFFICIENTNET = {
    "b0": Released(1.0, 1.0, 224),
    "b1": Released(1.1, 1.0, 240),
    "b2": Released(1.2, 1.1, 260),
    "b3": Released(1.4, 1.2, 300),
    "b4": Released(1.8, 1.4, 380),
    "b5": Released(2.2, 1.6, 456),
    "b6": Released(2.6, 1.8, 528),
    "b7": Released(3.1, 2.0, 600),
}


def round_width(width: float, multiple: int = 1) -> int:
    """To a multiple of 8, never below it nor below 0.9 times the width (as published).

    And to one of `multiple`, for channels that fall into groups.
    """
    return _rounded(width, math.lcm(8, multiple))


def round_finely(width: float, multiple: int = 1) -> int:
    """As published, but narrow maps take finer steps (`_step`)."""
    return _rounded(width, math.lcm(_step(width), multiple))


def _step(width: float) -> int:
    """Multiples of 8, of 4 below 32 and of 2 below 16: what is left of a small budget is small."""
    return 8 if width >= 32 else 4 if width >= 16 else 2


def _rounded(width: float, step: int) -> int:
    rounded = max(step, int(width + step / 2) // step * step)
    return rounded + step if rounded < 0.9 * width else rounded


def scale(
    architecture: Architecture,
    *,
    depth: float = 1,
    width: float = 1,
    resolution: float = 1,
    rounding: Callable[[float, int], int] = round_width,
    widest: float = math.inf,
) -> Architecture:
    """Every stage deeper and wider by the factors, at a larger resolution.

    Depths are rounded up and widths to multiples of 8 (as published), or as `rounding` says, and
    always so that groups divide; the resolution to multiples of 4. A deeper stage repeats its
    fusions in their order. Factors of 1 change nothing but rounding. Depths end at 32, resolutions
    at 1024 and widths at `widest`, or at what they are where that is more.
    """

    def rounded(value: int, multiple: int = 1) -> int:
        return rounding(min(value * width, max(widest, value)), multiple)

    def wide(gene: G, *names: str, multiple: int = 1) -> G:
        old = {name: getattr(gene, name, None) for name in names}
        new = {name: rounded(value, multiple) for name, value in old.items() if value}
        return gene.model_copy(update=new)

    def stage_scaled(stage: Stage) -> Stage:
        wider = wide(_deepened(stage, depth), "width", "growth", multiple=channel_multiple(stage))
        if stage.cross is None:
            return wider
        cross = wide(stage.cross, "expand", "output", multiple=channel_multiple(stage))
        return wider.model_copy(update={"cross": cross})

    side = max(_smallest_side(architecture), round(architecture.resolution * resolution / 4) * 4)
    stem = wide(architecture.stem, "width")
    if stem.before:
        before = tuple(rounded(channels) for channels in stem.before)
        stem = stem.model_copy(update={"before": before})
    changed: dict[str, Any] = {
        "resolution": min(max(MAX_RESOLUTION, architecture.resolution), side),
        "stem": stem,
        "stages": tuple(stage_scaled(stage) for stage in architecture.stages),
    }
    if architecture.neck:
        changed["neck"] = wide(architecture.neck, "width")
    if isinstance(architecture.head, ConvHead):
        changed["head"] = wide(architecture.head, "width")
    return architecture.model_copy(update=changed)


_finely = partial(scale, rounding=round_finely, widest=MAX_WIDTH)


def efficientnet(architecture: Architecture, name: str) -> Architecture:
    """EfficientNet-B0's document scaled by the released coefficients of `b0` to `b7`."""
    released = EFFICIENTNET[name]
    factor = released.resolution / architecture.resolution
    return scale(
        architecture, depth=released.depth, width=released.width, resolution=factor
    ).settled()


def _smallest_side(architecture: Architecture) -> int:
    """The side at which the last map still has 2 pixels a side, in multiples of 4."""
    strides = math.prod(stage.total_stride for stage in architecture.stages)
    return -(-2 * architecture.stem.total_stride * strides // 4) * 4


def channel_multiple(stage: Stage) -> int:
    """What widths are multiples of, so that the groups of a bottleneck divide them.

    An `inner` of 0.333 is a third: thousandths would leave no width that anybody could want.
    """
    if not isinstance(stage.block, Grouped):
        return 1
    part = stage.block.groups or stage.block.group_width or 1
    if part == 1:
        return 1
    inner = Fraction(stage.block.inner).limit_denominator(100)
    whole = part * inner.denominator
    return whole // math.gcd(inner.numerator, whole)


def _deepened(stage: Stage, factor: float) -> Stage:
    # the tolerance keeps a depth whose factor is 1 but for rounding errors from growing by one
    deep = min(max(MAX_DEPTH, stage.depth), max(1, math.ceil(stage.depth * factor - 1e-9)))
    if deep == stage.depth:
        return stage
    changed: dict[str, Any] = {"depth": deep}
    changed["fusion"] = tuple(stage.fusion[i * stage.depth // deep] for i in range(deep))
    fewer = stage.model_copy(update=changed)
    if not fewer.keeps:
        changed["width"] = None
    if not fewer.grows:
        changed["growth"] = None
    return stage.model_copy(update=changed)


class Budget(NamedTuple):
    """What a network may cost: MACs by either count, and parameters where those are limited."""

    macs: int
    params: int | None = None

    def used(self, price: Cost) -> float:
        """The share of the tighter limit that a network takes; at most 1 where it fits."""
        if self.macs <= 0:
            return math.inf
        params = price.params / self.params if self.params else 0.0
        return max(price.larger / self.macs, params)

    def fits(self, architecture: Architecture) -> bool:
        """Whether it is within the limits, and a network at all: copies have not been checked."""
        return self.used(cost(architecture)) <= 1 and architecture.misfit() is None

    def refusal(self, price: Cost) -> BudgetError:
        """Of a network that costs as much as this and cannot be made smaller."""
        params, needed, options = "", "", []
        if price.larger > self.macs:
            options.append(enough_for(price.larger))
        if self.params:
            params = f" and {show_macs(self.params)} parameters"
            needed = f" and {show_macs(price.params)}"
            if price.params > self.params:
                options.append(f"--max-params {price.params}")
        return BudgetError(
            f"this network does not fit {show_macs(self.macs)} MACs{params}",
            why=f"at its smallest it needs {show_macs(price.larger)}{needed}",
            fix=" ".join(options),
            needed=price.larger,
        )


def fit_to_budget(
    architecture: Architecture, scaling: Scaling, macs: int, params: int | None = None
) -> Architecture:
    """The largest scaled network whose MACs, by our count and by thop's, are at most `macs`.

    With `params` it has at most so many parameters as well. First the compound coefficient is
    solved for, then the widths alone take up what rounding of depth and resolution left, all
    together and then one by one from the last stage to the first.

    Raises:
        BudgetError: even the smallest network in this direction costs more.
    """
    budget, scaled = Budget(macs, params), partial(_scaled, architecture, scaling)

    def widened(factor: float) -> Architecture:
        return _finely(fitted, width=factor)

    search = _Search(_doublings(scaled, budget), _PHI, step=0.06, tolerance=0.03)
    fitted = _largest(scaled, search, budget) or smallest(architecture, scaling)
    if not budget.fits(fitted):
        raise budget.refusal(cost(fitted))
    # cost grows with the square of the width
    room = math.sqrt(1 / budget.used(cost(fitted)))
    search = _Search(room, (1.0, 1.6), step=0.03, tolerance=0.004)
    # its own widths, rounded again, may be larger where channels fall into groups
    fitted = _largest(widened, search, budget) or fitted
    return _topped_up(fitted, budget).settled()


def smallest(architecture: Architecture, scaling: Scaling) -> Architecture:
    """What is left of a network in this direction when nothing more can be scaled down.

    It is the network itself where no other of its sizes can be built.
    """
    start, end = _PHI
    sizes = (_scaled(architecture, scaling, n / 4) for n in range(int(4 * start), int(4 * end)))
    return next((network for network in sizes if network.misfit() is None), architecture)


def _scaled(architecture: Architecture, scaling: Scaling, phi: float) -> Architecture:
    depth, width, resolution = scaling.at(phi)
    return _finely(architecture, depth=depth, width=width, resolution=resolution)


def _doublings(scaled: Callable[[float], Architecture], budget: Budget) -> float:
    """About the coefficient at which a network reaches a limit, for it counts doublings."""
    guess = 0.0 if budget.macs > 0 else _PHI[0]
    for _ in range(2 if budget.macs > 0 else 0):
        guess = max(_PHI[0], guess - math.log2(budget.used(cost(scaled(guess)))))
    return guess


class _Search(NamedTuple):
    """Where to look for a number: a guess, the span, the first step from it, and how finely."""

    guess: float
    span: tuple[float, float]
    step: float
    tolerance: float


def _largest(
    make: Callable[[float], Architecture], search: _Search, budget: Budget
) -> Architecture | None:
    """The last member of a family of growing networks that fits: steps to both sides, bisection.

    None where none was found, down to the first.
    """
    (start, end), step = search.span, search.step
    low = high = min(end, max(start, search.guess))
    best = make(low)
    while not budget.fits(best):
        if low == start:
            return None
        high, low, step = low, max(start, low - step), 2 * step
        best = make(low)
    while low == high < end:
        high, step = min(end, low + step), 2 * step
        if budget.fits(wider := make(high)):
            low, best = high, wider
    while high - low > search.tolerance:
        middle = (low + high) / 2
        if budget.fits(network := make(middle)):
            low, best = middle, network
        else:
            high = middle
    return best


def _topped_up(architecture: Architecture, budget: Budget) -> Architecture:
    """Widen the head and then stage by stage, the last one first, as far as each still fits.

    Once is enough: what did not fit before others were widened does not fit after it.
    """
    if isinstance(architecture.head, ConvHead):
        architecture = _widest(architecture, _wider_head, budget)
    for number in reversed(range(len(architecture.stages))):
        for name in ("width", "growth"):
            architecture = _widest(architecture, partial(_wider_stage, number, name), budget)
    return architecture


def _widest(
    architecture: Architecture,
    wider: Callable[[Architecture, int], Architecture | None],
    budget: Budget,
) -> Architecture:
    """The widest that fits, where `wider` widens by so many steps: doubled, then halved."""
    steps, taken = 1, 0
    best = architecture
    while (following := wider(architecture, steps)) and budget.fits(following):
        best, taken, steps = following, steps, 2 * steps
    while steps - taken > 1:
        middle = (steps + taken) // 2
        following = wider(architecture, middle)
        if following and budget.fits(following):
            best, taken = following, middle
        else:
            steps = middle
    return best


def _wider_head(architecture: Architecture, steps: int) -> Architecture | None:
    head = architecture.head
    if not isinstance(head, ConvHead) or head.width + 8 * steps > MAX_WIDTH:
        return None
    wider = head.model_copy(update={"width": head.width + 8 * steps})
    return architecture.model_copy(update={"head": wider})


def _wider_stage(
    number: int, name: str, architecture: Architecture, steps: int
) -> Architecture | None:
    """With a stage's width or growth some steps larger, where it has one that may grow."""
    stages = architecture.stages
    value = getattr(stages[number], name)
    if value is None:
        return None
    finest = _step(value) if name == "width" else min(4, _step(value))
    value += steps * math.lcm(finest, channel_multiple(stages[number]))
    if value > MAX_WIDTH:
        return None
    wider = stages[number].model_copy(update={name: value})
    changed = (*stages[:number], wider, *stages[number + 1 :])
    return architecture.model_copy(update={"stages": changed})
