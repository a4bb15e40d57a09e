"""What a study found, computed: rows of the front, counts, baselines, hypervolume over trials.

Accuracies are on validation images. Those of different rungs are never compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from nasfuse.architecture import Architecture
from nasfuse.costs import show_macs
from nasfuse.finals import REPEATS, Finalist, Verdict, verdict
from nasfuse.pareto import Point, front, hypervolume
from nasfuse.results import Result, complete, result_front

# points of accuracy by which trainings of one network deviate between seeds: scripts/audit_rungs.py
# measured 0.2 on Fashion-MNIST and this on CIFAR-10
SCATTER = 0.7


class Row(NamedTuple):
    """One trained network in a table: accuracy between 0 and 1, costs in MACs and parameters."""

    key: str
    number: int
    accuracy: float
    macs: int
    params: int
    thop: int
    fusions: str
    origin: str


def fusion_text(architecture: Architecture) -> str:
    """The fusions from input to output: "add aff concat | gated x4", a bar between stages.

    A block without a skip has none ("-" for a stage of such); a neck follows: "/ pan gated".
    """
    neck = architecture.neck
    joined = getattr(neck, "fusion", None)
    end = f" / {neck.kind}{f' {joined.kind}' if joined else ''}" if neck else ""
    return " | ".join(fusion_stages(architecture)) + end


def fusion_stages(architecture: Architecture) -> list[str]:
    """The fusions of each stage."""
    stages = []
    for stage, channels in architecture.entries():
        skips = stage.fusion[stage.idle_fusion(channels) is not None :]
        stages.append(" ".join(_runs([fusion.kind for fusion in skips])) or "-")
    return stages


def _runs(kinds: Sequence[str]) -> Iterator[str]:
    for kind, same in groupby(kinds):
        count = len(list(same))
        yield from [kind] * count if count < 3 else [f"{kind} x{count}"]


def row(result: Result) -> Row:
    """A complete result as a row."""
    costs = (result.macs, result.params, result.thop)
    text = fusion_text(result.architecture)
    return Row(result.key, result.number, result.point.accuracy, *costs, text, result.origin)


def front_rows(results: Sequence[Result]) -> list[Row]:
    """The front of the highest rung that anything completed, cheapest first."""
    return [row(result) for result in result_front(results)]


@dataclass(frozen=True)
class Summary:
    """What a study found. `rung` is the highest one that anything completed.

    `counts` are evaluations by rung and status; `history` is the hypervolume after each complete
    evaluation of `rung`, in the order they ended. `baseline` is the most accurate hand-made
    network, `found` the most accurate of the others. `verdict` is what the finals say,
    `spending` what the trainings took. `alone`: one network only went to the end, and had its
    finals.
    """

    budget: int
    validation: int
    rung: int
    counts: dict[tuple[int, str], int]
    front: list[Row]
    references: list[Row]
    baseline: Row | None
    found: Row | None
    history: list[float]
    verdict: Verdict | None
    spending: str
    alone: bool

    @property
    def best(self) -> Row | None:
        return self.front[-1] if self.front else None

    @property
    def hypervolume(self) -> float:
        """Share of the box from no cost to the budget and from 0 to 1 that the front covers."""
        return self.history[-1] if self.history else 0.0

    @property
    def gain(self) -> float | None:
        """Points of accuracy by which the search's best beats the best hand-made network."""
        if self.baseline is None or self.found is None:
            return None
        return 100 * (self.found.accuracy - self.baseline.accuracy)


def summarise(results: Sequence[Result], *, budget: int, validation: int) -> Summary:
    """What these results say; `budget` in MACs, `validation` is the number of such images."""
    rung = max((r.rung for r in results if r.status == "complete"), default=0)
    trained = complete(results, rung)
    points = [result.point for result in trained]
    references = [row(result) for result in trained if result.is_reference]
    others = [row(result) for result in trained if not result.is_reference]
    return Summary(
        budget=budget,
        validation=validation,
        rung=rung,
        counts=dict(sorted(Counter((r.rung, str(r.status)) for r in results).items())),
        front=front_rows(results),
        references=references,
        baseline=_most_accurate(references),
        found=_most_accurate(others),
        history=hypervolumes(points, budget=reach(trained, budget)),
        verdict=verdict(results, rung, images=validation),
        spending=spending(results),
        alone=len(trained) == 1 and any(r.repeat and r.status == "complete" for r in results),
    )


def reach(trained: Sequence[Result], budget: int) -> float:
    """The cost up to which the hypervolume counts: the budget, or the largest there is."""
    of_macs = all(result.objective == "macs" for result in trained)
    return budget if of_macs else 1.01 * max(result.cost for result in trained)


def _most_accurate(rows: Sequence[Row]) -> Row | None:
    return max(rows, key=lambda r: (r.accuracy, -r.macs), default=None)


def hypervolumes(points: Sequence[Point], *, budget: float) -> list[float]:
    """The hypervolume of the first point, of the first two, and so on."""
    kept: list[Point] = []
    volumes = []
    for point in points:
        kept = [*kept, point]
        kept = [kept[i] for i in front(kept)]
        volumes.append(hypervolume(kept, budget=budget))
    return volumes


UNFINISHED = f"No winner is named: the best have yet to be trained {REPEATS} more times each."
ALONE = "No winner is named: only one network was trained to the end, with none to compare it with."


def sentences(summary: Summary) -> list[str]:
    """The summary in words, for the page and the text; nothing is escaped yet."""
    counts = ", ".join(f"rung {r}: {n} {status}" for (r, status), n in summary.counts.items())
    lines = [f"Budget {show_macs(summary.budget)} MACs. Evaluations: {counts or 'none yet'}."]
    if summary.best is None:
        return [*lines, "No evaluation is complete yet, so there is no front to show."]
    covered = f"Hypervolume {summary.hypervolume:.4f}."
    lines.append(f"Most accurate in a single training: {_brief(summary.best)}. {covered}")
    first, *rest = conclusion(summary)
    return [first, *lines, *rest, summary.spending]


def conclusion(summary: Summary) -> list[str]:
    """What may be said of the best networks, after the finals or without them."""
    if summary.verdict is not None or summary.best is None:
        return verdict_sentences(summary.verdict)
    return [_open(summary), *_comparison(summary)]


def _open(summary: Summary) -> str:
    """Why there is no verdict."""
    return ALONE if summary.alone else UNFINISHED


def _brief(one: Row) -> str:
    accuracy, macs = f"{one.accuracy:.2%}", show_macs(one.macs)
    return f"trial {one.number} ({one.origin}), {accuracy} with {macs} MACs"


def _comparison(summary: Summary) -> list[str]:
    gain, baseline, found = summary.gain, summary.baseline, summary.found
    if gain is None or baseline is None or found is None:
        return []
    sign = "above" if gain >= 0 else "below"
    margin = _margin(found.accuracy, summary.validation)
    claim = "" if abs(gain) >= margin else " No difference can be claimed."
    return [
        f"Best hand-made network: {_brief(baseline)}. Best found by the search: {_brief(found)}: "
        f"{abs(gain):.2f} points {sign} it, with {found.macs / baseline.macs:.3g} times its MACs.",
        f"Trainings of one network deviate by 0.2 to {SCATTER} points between seeds, "
        f"depending on the images, and on {summary.validation:,} validation images a difference "
        f"below {margin:.1f} points may be chance.{claim}",
    ]


def verdict_sentences(found: Verdict | None) -> list[str]:
    """What the finals show, in words; nothing where there were none."""
    if found is None:
        return []
    best, count = found.best, len(found.finalists)
    counts = sorted({len(finalist.accuracies) for finalist in found.finalists})
    seeds = " to ".join(map(str, {counts[0]: 0, counts[-1]: 0}))
    take = f"{_brief(row(best.result))} in its first training"
    if found.clear:
        low, middle, high = found.margins[1]
        line = (
            f"Winner: {take}; it is {100 * middle:.2f} points more accurate than the second "
            f"({100 * low:.2f} to {100 * high:.2f}, 95 % for all pairs)."
        )
    else:
        others = [f"{f.result.number} ({f.result.origin})" for f in found.tied]
        line = (
            f"No winner: trials {', '.join(others)} cannot be told apart. The cheapest of them, "
            f"which is taken as the best, is {take}."
        )
    return [
        line,
        *_against_hand_made(found),
        f"Finals: {count} networks trained again with {seeds} seeds that had no part in "
        "choosing them. The intervals allow for other seeds and for other images of this kind.",
        *(_finalist(*pair) for pair in zip(found.finalists, found.margins, strict=True)),
    ]


def _against_hand_made(found: Verdict) -> list[str]:
    """By how much the network to take beats the best hand-made finalist, or that it does not."""
    best, hand_made = found.best, found.baseline
    if hand_made is None:
        return ["No hand-made network is among the finalists, so nothing is claimed against one."]
    name = f"the best hand-made network, {hand_made.result.origin}"
    rivals = [finalist for finalist in found.finalists if not finalist.result.is_reference]
    if best.result.is_reference:
        if not rivals:
            return []
        rival = rivals[0]
        low, middle, high = (100 * value for value in found.margin(rival, hand_made))
        return [
            f"The search does not beat {name}: its best finalist, trial {rival.result.number}, is "
            f"{middle:+.2f} points ({low:+.2f} to {high:+.2f}) against it."
        ]
    low, middle, high = (100 * value for value in found.margin(best, hand_made))
    ratio = best.result.cost / hand_made.result.cost
    numbers = f"{middle:+.2f} points ({low:+.2f} to {high:+.2f}), {ratio:.3g} times its cost"
    claim = "beats" if low > 0 else "is not shown to be more accurate than"
    return [f"Trial {best.result.number} {claim} {name}: {numbers}."]


def spending(results: Sequence[Result]) -> str:
    """What the trainings took, in words."""
    seconds, work = sum(r.seconds for r in results), sum(r.cpu_seconds or 0 for r in results)
    gpus = sum(r.seconds * (r.gpus or 0) for r in results)
    on_gpus = f" and {gpus:,.0f} GPU-seconds" if gpus else ""
    shared = " (shared by MPS)" if any(r.mps for r in results) else ""
    halved = sum(r.retry is not None for r in results)
    again = f" {halved} ran out of memory and began again with half the batch." if halved else ""
    return (
        f"Cost: {len(results)} trainings took {work:,.0f} CPU-seconds{on_gpus}{shared}, "
        f"{seconds:,.0f} seconds of their workers.{again}"
    )


def _finalist(one: Finalist, margin: tuple[float, float, float]) -> str:
    low, middle, high = (-100 * value for value in margin)
    behind = f", {middle:+.2f} ({high:+.2f} to {low:+.2f}) against the first" if middle else ""
    result = one.result
    return (
        f"Trial {result.number} ({result.origin}): {one.mean:.2%} with a deviation of "
        f"{100 * one.deviation:.2f} points between seeds{behind}; {show_macs(result.macs)} MACs."
    )


def _margin(accuracy: float, images: int) -> float:
    """Points within which two accuracies may differ by chance (95%): by seeds and by images."""
    variance = accuracy * (1 - accuracy) / max(1, images)
    return 1.96 * math.sqrt(2 * (SCATTER**2 + 100**2 * variance))
