"""Fusion map: which fusion stands where on the front, and what it does to accuracy there.

Networks of one study differ in depth, so places are named by what they have in common: the `first`
skip of a stage, where size and width change, and its `inner` ones, taken together by their shares;
a stage is one place where too few networks have different fusions at the two. A neck's kind and
its fusion are places of their own.

Effects are those of an additive model of the accuracies on the first rung, which every network
has; the higher ones hold only networks that did well. Columns: the share of each fusion at each
place; the logarithms of the MACs (and its square), of the number of blocks and of the resolution
(and of the parameters, where those are the objective); the share of each kind of block. So fusions
are compared as swaps are: at equal cost, depth and resolution, where the widths give what a fusion
takes. What it does by the parameters that it brings at equal MACs is part of its effect. Each is
compared with the plain mean of the fusions at its place. A study too small for that is asked about
whole stages, or about all skips at once, or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

from nasfuse.architecture import Architecture
from nasfuse.effects import ALPHA, Additive, Array, Effect, holm
from nasfuse.results import Result, complete, result_front

FEWEST = 5  # networks that have a fusion at a place, for its effect to be estimated
FREEDOM = 10  # of the residuals, for a model to be fitted at all
COVERED = 0.5  # of the fusions at all places, whose effects a level has to be able to estimate

Shares = dict[str, dict[str, float]]  # of each fusion, by place
Naming = Callable[[int, bool], str]  # of a place, by its stage and whether the skip is the first
LEVELS = ("first and inner skips of each stage", "whole stages", "all skips together")


@dataclass(frozen=True)
class Cell:
    """A fusion at a place: networks that have it, those of the front, and what it does.

    `effect` is in accuracy between 0 and 1, against the mean of the fusions at its place, for a
    place that has nothing else; None where there is too little data. `adjusted` is its p by Holm.
    """

    place: str
    fusion: str
    networks: int
    front: int
    effect: Effect | None = None
    adjusted: float = 1.0

    @property
    def shown(self) -> bool:
        """Whether the fusion is shown to differ, with all comparisons of the map counted."""
        return self.effect is not None and self.adjusted < ALPHA


@dataclass(frozen=True)
class Interaction:
    """What two fusions at two places do together, beyond what each does alone."""

    one: tuple[str, str]
    other: tuple[str, str]
    effect: Effect
    adjusted: float


@dataclass(frozen=True)
class FusionMap:
    """`cells` of every one of `places`, then those of `level` where that is a coarser one.

    `level` is None where no model could be fitted. `tests` are the comparisons that were made,
    `pairs` those of interactions, of which the `interactions` are the most certain ones.
    """

    networks: int
    front: int
    places: tuple[str, ...]
    cells: tuple[Cell, ...]
    level: str | None
    tests: int
    interactions: tuple[Interaction, ...]
    pairs: int

    @property
    def estimated(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.effect]

    @property
    def shown(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.shown]

    def find(self, places: Sequence[str], fusion: str) -> Effect | None:
        """The effect of a fusion at the first of these places that has one."""
        known = {(cell.place, cell.fusion): cell.effect for cell in self.cells}
        return next((e for place in places if (e := known.get((place, fusion)))), None)


def place_names(stage: int, first: bool) -> tuple[str, str, str]:
    """What the place of a skip is called, from fine to coarse; see LEVELS."""
    return f"stages.{stage} {'first' if first else 'inner'}", f"stages.{stage}", "all skips"


def _named(level: int, stage: int, first: bool) -> str:
    return place_names(stage, first)[level]


def shares(architecture: Architecture, name: Naming) -> Shares:
    """How often each fusion occurs at each place, as shares of the place."""
    counts: dict[str, Counter[str]] = {}
    for number, (stage, channels) in enumerate(architecture.entries()):
        idle = stage.idle_fusion(channels) is not None
        for index, fusion in enumerate(stage.fusion):
            if index or not idle:
                counts.setdefault(name(number, index == 0), Counter())[fusion.kind] += 1
    neck = architecture.neck
    counts["neck"] = Counter([neck.kind if neck else "none"])
    if joined := getattr(neck, "fusion", None):
        counts["neck fusion"] = Counter([joined.kind])
    return {
        place: {kind: n / sum(found.values()) for kind, n in found.items()}
        for place, found in counts.items()
    }


def fusion_map(results: Sequence[Result]) -> FusionMap:
    """The map of a study's results."""
    trained = complete(results, 0)
    front = {result.key for result in result_front(results)}
    names: list[Naming] = [_fine(trained), *(partial(_named, level) for level in (1, 2))]
    finest = _cells(trained, front, names[0])
    places = tuple(dict.fromkeys(cell.place for cell in finest))
    counted = FusionMap(len(trained), len(front), places, tuple(finest), None, 0, (), 0)
    for level, name in zip(LEVELS, names, strict=True):
        cells = _cells(trained, front, name)
        kept = _frequent(cells)
        if not kept or len(kept) < COVERED * len(cells):
            continue
        columns = _columns(trained, [shares(r.architecture, name) for r in trained], kept)
        model = Additive.fit(columns, np.array([result.point.accuracy for result in trained]))
        if model.freedom >= FREEDOM:
            return _modelled(counted, level, model, (cells, kept))
    return counted


def _modelled(
    counted: FusionMap, level: str, model: Additive, cells: tuple[list[Cell], list[Cell]]
) -> FusionMap:
    """The map with all cells of the level, and what the model says of those that it has."""
    every, kept = cells
    judged = _judged(model, kept)
    found, pairs = _interactions(model, kept)
    listed = {_key(cell): cell for cell in (*counted.cells, *every)}
    return replace(
        counted,
        cells=tuple((listed | judged).values()),
        level=level,
        tests=sum(cell.effect is not None for cell in judged.values()),
        interactions=found,
        pairs=pairs,
    )


def _frequent(cells: Sequence[Cell]) -> list[Cell]:
    """Those whose effect can be estimated, at places where there are two or more of them."""
    kept = [cell for cell in cells if cell.networks >= FEWEST]
    counts = Counter(cell.place for cell in kept)
    return [cell for cell in kept if counts[cell.place] > 1]


def _key(cell: Cell) -> tuple[str, str]:
    return cell.place, cell.fusion


def _fine(trained: Sequence[Result]) -> Naming:
    """First and inner skips apart where enough networks have different fusions there."""
    apart: Counter[int] = Counter()
    for result in trained:
        found = shares(result.architecture, partial(_named, 0))
        for number in range(len(result.architecture.stages)):
            first, inner = (found.get(place_names(number, which)[0]) for which in (True, False))
            apart[number] += bool(first and inner and first != inner)
    return lambda stage, first: _named(0 if apart[stage] >= FEWEST else 1, stage, first)


def _cells(trained: Sequence[Result], front: set[str], name: Naming) -> list[Cell]:
    """Every fusion at every place that has a choice, counted."""
    networks: Counter[tuple[str, str]] = Counter()
    on_front: Counter[tuple[str, str]] = Counter()
    for result in trained:
        for place, found in shares(result.architecture, name).items():
            networks.update((place, fusion) for fusion in found)
            on_front.update((place, fusion) for fusion in found if result.key in front)
    choices = Counter(place for place, _ in networks)
    ordered = sorted(networks, key=_in_network)
    return [Cell(*key, networks[key], on_front[key]) for key in ordered if choices[key[0]] > 1]


def _in_network(key: tuple[str, str]) -> tuple[object, ...]:
    """Sorts places from input to output: stages.10 behind stages.2, necks behind stages."""
    stage = key[0].split()[0]
    return stage == "neck", len(stage), key


def _columns(trained: Sequence[Result], rows: Sequence[Shares], cells: Sequence[Cell]) -> Array:
    """One column a cell, one for all other fusions of its place, then the covariates."""
    places = list(dict.fromkeys(cell.place for cell in cells))
    columns = [[row.get(c.place, {}).get(c.fusion, 0.0) for row in rows] for c in cells]
    for place in places:
        kept = {cell.fusion for cell in cells if cell.place == place}
        found = [row.get(place, {}) for row in rows]
        columns.append([sum(s for kind, s in one.items() if kind not in kept) for one in found])
    return np.column_stack([*map(np.array, columns), *_covariates(trained)])


def _covariates(trained: Sequence[Result]) -> Iterator[Array]:
    yield np.ones(len(trained))
    macs = _doublings([result.macs for result in trained])
    yield from (macs, macs**2)
    yield _doublings([sum(stage.depth for stage in r.architecture.stages) for r in trained])
    yield _doublings([result.architecture.resolution for result in trained])
    if trained and trained[0].objective == "params":
        yield _doublings([result.params for result in trained])
    blocks = [
        Counter(s.block.kind for s in r.architecture.stages for _ in s.fusion) for r in trained
    ]
    for kind in sorted(set().union(*blocks)):
        yield np.array([counts[kind] / counts.total() for counts in blocks])


def _doublings(costs: Sequence[float]) -> Array:
    logs = np.log2(np.array(costs, dtype=float))
    return np.asarray(logs - logs.mean()) if len(logs) else logs


def _judged(model: Additive, cells: Sequence[Cell]) -> dict[tuple[str, str], Cell]:
    """The cells with their effects against the mean of their place, and Holm's p over all."""
    found = []
    for number, cell in enumerate(cells):
        weights = np.zeros(model.columns.shape[1])
        same = [i for i, other in enumerate(cells) if other.place == cell.place]
        weights[same] -= 1 / len(same)
        weights[number] += 1
        found.append(replace(cell, effect=model.contrast(weights)))
    tested = [cell for cell in found if cell.effect]
    adjusted = holm([cell.effect.p for cell in tested if cell.effect])
    ps = {_key(cell): p for cell, p in zip(tested, adjusted, strict=True)}
    return {_key(cell): replace(cell, adjusted=ps.get(_key(cell), 1.0)) for cell in found}


SHOWN = 5  # interactions that are kept, of all that were looked at


def _interactions(model: Additive, cells: Sequence[Cell]) -> tuple[tuple[Interaction, ...], int]:
    """Of fusions at two places, where enough networks have both and enough have only one."""
    tested = []
    for i, j in combinations(range(len(cells)), 2):
        one, other = model.columns[:, i], model.columns[:, j]
        both = int(((one > 0) & (other > 0)).sum())
        if cells[i].place == cells[j].place or both < FEWEST:
            continue
        if min(cells[i].networks, cells[j].networks) - both < FEWEST:
            continue
        if model.freedom > FREEDOM and (effect := model.added(one * other)):
            tested.append((_key(cells[i]), _key(cells[j]), effect))
    adjusted = holm([effect.p for *_, effect in tested])
    found = [Interaction(*one, p) for one, p in zip(tested, adjusted, strict=True)]
    return tuple(sorted(found, key=lambda one: one.effect.p)[:SHOWN]), len(tested)
