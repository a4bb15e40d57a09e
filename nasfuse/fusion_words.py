"""What a study says about fusions, in words and tables; nothing is escaped yet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from nasfuse.costs import show_macs
from nasfuse.effects import ALPHA, Effect, to_show
from nasfuse.fusion_map import FREEDOM, LEVELS, Cell, FusionMap, Interaction
from nasfuse.network import cost
from nasfuse.results import Result
from nasfuse.swaps import Comparison
from nasfuse.tables import plain

Line = Sequence[str]


class Table(NamedTuple):
    """A header, lines of cells, and how many columns on the left are words and not numbers."""

    header: Line
    lines: list[Line]
    words: int


class Swapped(NamedTuple):
    """A network and what came of its swaps."""

    original: Result
    comparisons: list[Comparison]


def size(effect: Effect) -> str:
    """An effect and its interval in points of accuracy."""
    middle, low, high = (f"{100 * value:+.2f}" for value in effect[:3])
    return f"{middle} ({low} to {high})"


def probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def map_sentences(found: FusionMap) -> list[str]:
    """What the map shows, what it does not, and how many comparisons were made."""
    lines = [
        f"{found.networks} networks after their short training (rung 0), "
        f"{found.front} on the front."
    ]
    if found.level is None:
        return [
            *lines,
            "Too little data to tell effects from chance: an additive model, even of all skips "
            f"together, would leave fewer than {FREEDOM} degrees of freedom, or most fusions occur "
            "in fewer than 5 networks. Search longer, then ask again.",
        ]
    reach = median(c.effect.high - c.effect.low for c in found.estimated if c.effect) / 2
    coarse = "" if found.level == LEVELS[0] else " (too few networks for anything finer)"
    lines.append(
        "Effects are points of accuracy against the mean of the fusions at a place, at equal MACs, "
        f"depth, resolution and blocks, by {found.level}{coarse}. {found.tests} comparisons, "
        f"Holm's correction; the median 95 % interval reaches {100 * reach:.2f} points to either "
        "side."
    )
    shown = [_cell_sentence(cell) for cell in found.shown]
    lines += shown or ["No fusion is shown to be better or worse than the others at its place."]
    kept = [_pair_sentence(one) for one in found.interactions if one.adjusted < ALPHA]
    if found.pairs:
        rest = "" if kept else ": none is shown"
        lines.append(f"Interactions of {found.pairs} pairs of fusions were looked at{rest}.")
    lines += kept
    lines.append(
        "The sampler tried more of what went well, and one training a network scatters: take this "
        "as what to test by swaps."
    )
    return lines


def _cell_sentence(cell: Cell) -> str:
    assert cell.effect
    return f"{cell.place}: {cell.fusion} {_points(cell.effect)}."


def _points(effect: Effect) -> str:
    middle, rest = size(effect).split(" ", 1)
    return f"{middle} points {rest}"


def _pair_sentence(one: Interaction) -> str:
    (place, fusion), (other, second) = one.one, one.other
    return (
        f"{fusion} at {place} with {second} at {other}: {_points(one.effect)} beyond what each "
        "does alone."
    )


def map_table(found: FusionMap) -> Table:
    """A line for each fusion at each place."""
    header = ("place", "fusion", "front / all", "effect (95 %)", "Holm p", "")
    judged = {cell.place for cell in found.estimated}
    return Table(header, [_cell_line(cell, cell.place in judged) for cell in found.cells], 2)


def _cell_line(cell: Cell, judged: bool) -> Line:
    counts = (cell.place, cell.fusion, f"{cell.front} / {cell.networks}")
    if cell.effect is None:
        return (*counts, "", "", "too few" if judged else "")
    verdict = ("better" if cell.effect.estimate > 0 else "worse") if cell.shown else ""
    return (*counts, size(cell.effect), probability(cell.adjusted), verdict)


def swap_sentences(swapped: Swapped) -> list[str]:
    """Which skip wants which fusion, and where none is shown to matter."""
    original, comparisons = swapped
    tested = [one for one in comparisons if one.effect]
    lines = [
        f"Trial {original.number} ({original.key}, {show_macs(original.macs)} MACs): "
        f"{len(comparisons)} swaps at the same cost, {_seeds(comparisons)}; differences are paired "
        f"by seed, {len(tested)} comparisons, Holm's correction."
    ]
    if tested:
        lines.append(
            f"At this scatter a single difference of about {100 * _needed(tested):.2f} points "
            "would show; more --seeds show smaller ones."
        )
    places = dict.fromkeys(one.swap.place for one in tested)
    for place in places:
        lines.append(_place_sentence([one for one in tested if one.swap.place == place]))
    return lines


def _needed(tested: Sequence[Comparison]) -> float:
    return median(
        to_show(one.effect, freedom=one.seeds - 1, tests=len(tested))
        for one in tested
        if one.effect
    )


def _seeds(comparisons: Sequence[Comparison]) -> str:
    counts = sorted({one.seeds for one in comparisons})
    least, most = counts[0], counts[-1]
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def _place_sentence(tried: Sequence[Comparison]) -> str:
    swap = tried[0].swap
    better = [one for one in tried if one.judgement == f"{one.swap.new} is better"]
    worse = [one for one in tried if one.judgement == f"{swap.old} is better"]
    if better:
        best = max(better, key=lambda one: one.effect.estimate if one.effect else 0.0)
        return f"{swap.place} wants {best.swap.new} instead of {swap.old}: {_size(best)}."
    if worse:
        losers = ", ".join(f"{one.swap.new} {_size(one)}" for one in worse)
        open_ = [one.swap.new for one in tried if one not in worse]
        rest = f"; no difference is shown to {', '.join(open_)}" if open_ else ""
        return f"{swap.place} wants {swap.old}: {losers}{rest}."
    ends = [abs(end) for one in tried if one.effect for end in (one.effect.low, one.effect.high)]
    names = ", ".join(one.swap.new for one in tried)
    return (
        f"{swap.place}: no difference is shown between {swap.old} and {names}; "
        f"the intervals reach {100 * max(ends):.2f} points."
    )


def _size(one: Comparison) -> str:
    assert one.effect
    return _points(one.effect)


def swap_table(swapped: Swapped) -> Table:
    """A line a swap."""
    header = ("swap", "seeds", "difference (95 %)", "Holm p", "MACs", "")
    return Table(header, [_swap_line(one) for one in swapped.comparisons], 1)


def _swap_line(one: Comparison) -> Line:
    macs = show_macs(cost(one.swap.architecture).macs)
    effect = (size(one.effect), probability(one.adjusted)) if one.effect else ("", "")
    return (one.swap.text, str(one.seeds), *effect, macs, one.judgement)


def markdown(table: Table) -> str:
    """A table as Markdown, escaped; nothing where it is empty."""
    if not table.lines:
        return ""
    rule = ["---" if number < table.words else "---:" for number in range(len(table.header))]
    rows = [table.header, rule, *([plain(cell) for cell in line] for line in table.lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def comma_separated(found: FusionMap, swapped: Sequence[Swapped]) -> dict[str, str]:
    """The map, and the swaps where there are any, as CSV with numbers that are not rounded."""
    files = {"fusion_map.csv": [_MAP_FIELDS, *map(_map_record, found.cells)]}
    if swapped:
        records = [_swap_record(s.original, one) for s in swapped for one in s.comparisons]
        files["fusion_swaps.csv"] = [_SWAP_FIELDS, *records]
    return {name: _csv(rows) for name, rows in files.items()}


_EFFECT_FIELDS = ("effect", "low", "high", "p", "p_holm")
_MAP_FIELDS = ("place", "fusion", "networks", "front", *_EFFECT_FIELDS)
_SWAP_FIELDS = ("key", "place", "fusion", "instead", "swap_key", "seeds", *_EFFECT_FIELDS)


def _map_record(cell: Cell) -> tuple[object, ...]:
    counts = (cell.place, cell.fusion, cell.networks, cell.front)
    return (*counts, *(cell.effect or [None] * 4), cell.adjusted if cell.effect else None)


def _swap_record(original: Result, one: Comparison) -> tuple[object, ...]:
    swap = one.swap
    names = (original.key, swap.place, swap.old, swap.new, swap.architecture.key, one.seeds)
    return (*names, *(one.effect or [None] * 4), one.adjusted if one.effect else None)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def document(found: FusionMap, swapped: Sequence[Swapped]) -> dict[str, object]:
    """All of it as plain values, for JSON; effects in accuracy between 0 and 1."""
    return {
        "networks": found.networks,
        "level": found.level,
        "comparisons": found.tests,
        "pairs": found.pairs,
        "map": [dict(zip(_MAP_FIELDS, _map_record(cell), strict=True)) for cell in found.cells],
        "interactions": list(_pair_records(found)),
        "swaps": [
            dict(zip(_SWAP_FIELDS, _swap_record(s.original, one), strict=True))
            for s in swapped
            for one in s.comparisons
        ],
    }


def _pair_records(found: FusionMap) -> Iterator[dict[str, object]]:
    for one in found.interactions:
        values = dict(zip(_EFFECT_FIELDS, (*one.effect, one.adjusted), strict=True))
        yield {"one": one.one, "other": one.other, **values}
