"""What a network costs: shapes, costs, budgets, and the price of the primitive layers.

One unit everywhere: a MAC is one multiply-accumulate of a convolution, a linear layer or a
matrix product, for one image. The "FLOPs" of mobile networks (EfficientNet-B0: 390M) are MACs,
and so are the FLOPs of a budget here. Batch norm, pooling, activations and element-wise fusion
count nothing, as in the papers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nasfuse.errors import UsageError

MOST = 10**18  # MACs or parameters, more than any network of any space can be scaled to


class Shape(NamedTuple):
    """The size of one feature map, without the batch."""

    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def strided(self, channels: int, stride: int) -> Shape:
        """The map that a padded layer with this stride puts out: sides are rounded up."""
        return Shape(channels, -(-self.height // stride), -(-self.width // stride))

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


class Cost(NamedTuple):
    """MACs and parameters, and the MACs that thop 0.1.1 would report.

    thop adds 4 for each element that passes an affine batch norm and 1 for each value that an
    average pooling puts out (and is told of matrix products, which it cannot see); it is the second
    opinion that a budget has to satisfy as well.
    """

    macs: int = 0
    params: int = 0
    thop: int = 0

    def __add__(self, other: object) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.macs + other.macs, self.params + other.params, self.thop + other.thop)

    @property
    def larger(self) -> int:
        """The larger of the two counts of MACs: what a budget is compared with."""
        return max(self.macs, self.thop)


NOTHING = Cost()


def conv_cost(
    shape: Shape, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> Cost:
    """A padded square convolution on `shape`: k*k*C/groups*C'*H'*W' MACs."""
    weights = kernel * kernel * shape.channels // groups * outputs
    macs = weights * shape.strided(outputs, stride).pixels
    return Cost(macs, weights + outputs * bias, macs)


def norm_cost(shape: Shape) -> Cost:
    """An affine batch norm: two parameters a channel; free by our count, 4 an element by thop."""
    return Cost(0, 2 * shape.channels, 4 * shape.channels * shape.pixels)


def linear_cost(inputs: int, outputs: int) -> Cost:
    """A linear layer with bias on one vector."""
    return Cost(inputs * outputs, inputs * outputs + outputs, inputs * outputs)


def pool_cost(shape: Shape, stride: int) -> Cost:
    """An average pooling module: free by our count, one an output value by thop."""
    out = shape.strided(shape.channels, stride)
    return Cost(0, 0, out.channels * out.pixels)


_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<prefix>[KMG]?)(?P<unit>FLOPS|MACS)?", re.I)
_LATENCY = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>ms|s)", re.I)
_PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_budget(text: str, option: str = "--budget") -> int:
    """MACs of a budget such as 400MFLOPs, 400MMACs, 0.4GFLOPs or 400M, which are all the same.

    `option` is where the text was given.

    Raises:
        UsageError: the text is not a positive number with one of the units.
    """
    match = _BUDGET.fullmatch(text.strip())
    macs = _whole(match) if match else 0
    if match is None or not (match["prefix"] or match["unit"]) or not 1 <= macs <= MOST:
        raise UsageError(
            f"'{text}' is not a budget",
            where=option,
            why="a budget is a positive number with a unit: FLOPs or MACs (the same thing here), "
            f"with K, M or G before it, and at most {MOST:.0e}",
            fix=f"{option} 400MFLOPs   (or 400MMACs, 0.4GFLOPs, 400M)",
        )
    return macs


def _whole(match: re.Match[str]) -> int:
    """The number that was written, at most a little over `MOST`, beyond which floats do not end."""
    return round(min(float(match["number"]) * _PREFIXES[match["prefix"].upper()], 2.0 * MOST))


_COUNT = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<prefix>[KMG]?)", re.I)


def parse_count(text: str | None) -> int | None:
    """A number of parameters such as 500K or 5M; None is no limit.

    Raises:
        UsageError: the text is not a positive number.
    """
    if text is None:
        return None
    match = _COUNT.fullmatch(text.strip())
    count = _whole(match) if match else 0
    if not 1 <= count <= MOST:
        raise UsageError(
            f"'{text}' is not a number of parameters",
            where="--max-params",
            why="it is a positive number, with K, M or G behind it where it is large, "
            f"and at most {MOST:.0e}",
            fix="--max-params 5M",
        )
    return count


def parse_latency(text: str | None) -> float | None:
    """Milliseconds of a latency such as 20ms or 0.5s; None is no limit.

    Raises:
        UsageError: the text is not a positive time with one of the units.
    """
    if text is None:
        return None
    match = _LATENCY.fullmatch(text.strip())
    milliseconds = (
        float(match["number"]) * (1000 if match["unit"].lower() == "s" else 1) if match else 0
    )
    if milliseconds <= 0:
        raise UsageError(
            f"'{text}' is not a latency",
            where="--max-latency",
            why="it must be a positive number with a unit: ms or s",
            fix="--max-latency 20ms",
        )
    return milliseconds


def show_macs(macs: float) -> str:
    """MACs for people: 385.8M, 1.82G, 950K."""
    for prefix in "TGMK":
        if macs >= _PREFIXES[prefix]:
            return f"{macs / _PREFIXES[prefix]:.4g}{prefix}"
    return f"{macs:.0f}"


def enough_for(macs: int) -> str:
    """The option with the next budget, in tenths of a million, that allows so many MACs."""
    return f"--budget {-(-macs // 100_000) / 10:.15g}MFLOPs"
