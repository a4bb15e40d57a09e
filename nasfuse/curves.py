"""What the page and the picture draw of a study: networks that look alike, costs, finals, growth.

Values of different rungs are never joined by a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from nasfuse.finals import Verdict
from nasfuse.pareto import Point, front
from nasfuse.results import Result, complete
from nasfuse.summary import hypervolumes, reach


class Cost(NamedTuple):
    """How a cost is called: on its button and beside its axis."""

    name: str
    axis: str


COSTS = {
    "macs": Cost("MACs", "MACs (millions)"),
    "params": Cost("parameters", "parameters (millions)"),
    "thop": Cost("MACs by thop", "MACs by thop (millions)"),
    "latency": Cost("latency", "milliseconds for one image"),
}
# Okabe and Ito's palette, which colour-blind readers tell apart
BLUE, SKY, VERMILION, GREEN, PURPLE = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"
GREY = "#8C8C8C"


class Series(NamedTuple):
    """Networks that are drawn alike. `cost` names the only x axis it belongs to, if there is one;
    `faint` ones are hidden until their name is clicked."""

    name: str
    results: list[Result]
    look: dict[str, Any]
    cost: str | None = None
    faint: bool = False


def series(results: Sequence[Result]) -> list[Series]:
    """What is drawn, from back to front: lower rungs, trials, a front a cost, references."""
    highest = max((r.rung for r in results if r.status == "complete"), default=0)
    trained = complete(results, highest)
    found = [r for r in trained if not r.is_reference]
    uniform = [r for r in trained if r.is_reference]
    small, lined = _marker(SKY, "circle", 7), _marker(VERMILION, "circle", 10, mode="lines+markers")
    lower = [
        Series(
            f"rung {n} (not comparable)",
            complete(results, n),
            _marker(GREY, "circle-open", 6),
            faint=True,
        )
        for n in range(highest)
    ]
    fronts = [Series("front", cheapest(trained, cost), lined, cost) for cost in costs(results)]
    uniforms = Series("hand-made", uniform, _marker(GREEN, "diamond", 11))
    return [*lower, Series("trials", found, small), *fronts, uniforms]


def costs(results: Sequence[Result]) -> list[str]:
    """The costs that are known of these networks, the study's objective first."""
    trained = [result for result in results if result.status == "complete"]
    names = [n for n in COSTS if all(getattr(r, n) is not None for r in trained)]
    objective = trained[0].objective if trained else "macs"
    return sorted(names, key=lambda name: name != objective)


def along(result: Result, cost: str) -> float:
    """Where a network lies on the axis of a cost."""
    value = float(getattr(result, cost))
    return value if cost == "latency" else value / 1e6


def _marker(colour: str, symbol: str, size: int, *, mode: str = "markers") -> dict[str, Any]:
    marker = {"color": colour, "symbol": symbol, "size": size}
    # steps: no network is known between two of the front, and at a cost the cheaper one holds
    return {"mode": mode, "marker": marker, "line": {"color": colour, "width": 2, "shape": "hv"}}


def cheapest(trained: Sequence[Result], cost: str) -> list[Result]:
    """The front when `cost` is what is to be low."""
    points = [Point(r.point.accuracy, getattr(r, cost)) for r in trained]
    return [trained[i] for i in front(points)]


class Repeated(NamedTuple):
    """A finalist's trainings with seeds of their own: percent, and points between seeds."""

    result: Result
    mean: float
    deviation: float
    seeds: int


def repeated(found: Verdict | None) -> list[Repeated]:
    return [
        Repeated(one.result, 100 * one.mean, 100 * one.deviation, len(one.accuracies))
        for one in (found.finalists if found else ())
    ]


class Growth(NamedTuple):
    """The hypervolume of a search over the networks that it had tried."""

    tried: list[int]
    volumes: list[float]


def growth(
    results: Sequence[Result], other: Sequence[Result], *, budget: int
) -> tuple[Growth, Growth]:
    """How two searches grew, in one box; the second is empty where there is none.

    Only networks of the highest rung count, each at the time when it was fully trained.
    """
    top = max((r.rung for r in [*results, *other] if r.status == "complete"), default=0)
    everything = complete(results, top) + complete(other, top)
    box = reach(everything, budget) if everything else budget
    return _grown(results, top, box), _grown(other, top, box)


def _grown(results: Sequence[Result], top: int, box: float) -> Growth:
    tried: list[int] = []
    known: set[str] = set()
    for one in results:
        known.add(one.key)
        if one.status == "complete" and (one.rung, one.repeat) == (top, 0):
            tried.append(len(known))
    points = [one.point for one in complete(results, top)]
    return Growth(tried, hypervolumes(points, budget=box))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: 1, 2, 5 a power of ten, or even steps if narrow."""
    if high > 6 * low:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [step * 10.0**power for power in powers for step in (1, 2, 5)]
    power = 10.0 ** math.floor(math.log10(high - low or low))
    step = next(s * power for s in (0.2, 0.5, 1.0, 2.0) if (high - low) / (s * power) <= 7)
    return [round(n * step, 9) for n in range(int(low / step), int(high / step) + 2) if n]
