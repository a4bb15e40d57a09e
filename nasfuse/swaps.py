"""Swaps: a network with one fusion changed, at the same cost, and what came of training both.

A swap takes another fusion of the space at one skip (at all skips of a stage, where the space has
one choice for them; or in the neck), with the settings that a hand-made reference would have: the
first choice, the middle of a range. Then the widths alone bring the network to the original's cost.
Original and swap are trained in full with the same seeds, none of which had a part in choosing the
original, and compared by the paired t test over seeds, with Holm's correction over swaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nasfuse.architecture import Architecture, Scaling, parse_architecture
from nasfuse.effects import ALPHA, Effect, holm, paired
from nasfuse.errors import BudgetError, DocumentError
from nasfuse.fusion_map import FusionMap, place_names
from nasfuse.holes import Choice, When, fill
from nasfuse.network import cost
from nasfuse.results import Result, judged
from nasfuse.scaling import channel_multiple, fit_to_budget, round_finely
from nasfuse.space import PatternTrial, SearchSpace, used_part
from nasfuse.stages import Stage

ORIGINAL = "original"  # the origin of results of the network that is explained
WIDTHS = Scaling(alpha=1.0, beta=1.2, gamma=1.0)


@dataclass(frozen=True)
class Swap:
    """One fusion of a network changed; `skip` is None where all of the stage change together.

    `stage` is None for the neck's fusion.
    """

    stage: int | None
    skip: int | None
    old: str
    new: str
    architecture: Architecture

    @property
    def place(self) -> str:
        """Its path in the document: stages.1.fusion.0."""
        if self.stage is None:
            return "neck.fusion"
        return f"stages.{self.stage}.fusion" + ("" if self.skip is None else f".{self.skip}")

    @property
    def text(self) -> str:
        return f"{self.place}: {self.old} to {self.new}"

    @property
    def map_places(self) -> Sequence[str]:
        """Where the map of the study's fusions has it, from fine to coarse."""
        if self.stage is None:
            return ("neck fusion",)
        return place_names(self.stage, self.skip == 0)[self.skip is None :]


def find_swaps(
    original: Architecture, space: SearchSpace, max_params: int | None = None
) -> list[Swap]:
    """Every swap that the space allows and that can be brought to the original's cost."""
    macs = cost(original).larger
    found = []
    for stage, skip, old, new, document in _changed(original, space):
        try:
            network = parse_architecture(used_part(document), where=space.name)
            fitted = fit_to_budget(network, WIDTHS, macs, max_params)
        except (BudgetError, DocumentError, ValueError):  # such as groups that do not divide
            continue
        if _skips(fitted) == _skips(original):  # other widths may begin or end one
            found.append(Swap(stage, skip, old, new, fitted))
    return found


def _skips(architecture: Architecture) -> list[bool]:
    """Whether the first block of each stage has a skip; all others have."""
    return [stage.idle_fusion(channels) is None for stage, channels in architecture.entries()]


Change = tuple[int | None, int | None, str, str, dict[str, Any]]


def _changed(original: Architecture, space: SearchSpace) -> Iterator[Change]:
    """The network's document with each other fusion at each place, of another cost."""
    for number, (stage, channels) in enumerate(original.entries()):
        template = space.template["stages"][number]
        hole = _without_when(template["fusion"])
        if not isinstance(hole, Choice):
            continue
        idle = stage.idle_fusion(channels) is not None
        for skip in range(int(idle), stage.depth) if hole.each else [None]:
            old = stage.fusion[-1 if skip is None else skip].kind
            for new, fusion in _others(hole, old):
                document = original.document()
                document["stages"][number] = _stage_document(stage, template, skip, fusion)
                yield number, skip, old, new, document
    neck = original.neck
    hole = _neck_hole(space.template.get("neck"), neck.kind if neck else None)
    if joined := getattr(neck, "fusion", None):
        for new, fusion in _others(hole, joined.kind):
            document = original.document()
            document["neck"]["fusion"] = fusion
            yield None, None, joined.kind, new, document


def _neck_hole(template: Any, kind: str | None) -> Any:
    """The hole of a neck's fusion, where the space has one."""
    node = template.options.get(kind) if isinstance(template, Choice) else template
    return node.get("fusion") if isinstance(node, dict) else None


def _others(hole: Any, old: str) -> Iterator[tuple[str, Any]]:
    """All that a hole may be but the old, by name, with the settings that a reference has."""
    if isinstance(hole, Choice):
        for label, option in hole.options.items():
            if label != old:
                yield str(label), _filled(option)


def _stage_document(
    stage: Stage, template: Mapping[str, Any], skip: int | None, fusion: Any
) -> dict[str, Any]:
    """The stage with another fusion at a skip, and the width or growth that it lacks for that."""
    document = stage.model_dump(mode="json", exclude_none=True)
    fusions = document["fusion"]
    chosen = range(len(fusions)) if skip is None else [skip]
    document["fusion"] = [fusion if i in chosen else old for i, old in enumerate(fusions)]
    known = "width" if stage.width else "growth"
    for name in {"width", "growth"} - document.keys():
        if name in template:
            ratio = _filled(template[name]) / _filled(template[known])
            size = round_finely(ratio * document[known], channel_multiple(stage))
            document[name] = size
    return document


def _without_when(node: Any) -> Any:
    return node.hole if isinstance(node, When) else node


def _filled(node: Any) -> Any:
    """What a hand-made reference has there that does not name it."""
    return fill(_without_when(node), PatternTrial({}), "")


def ordered(swaps: Sequence[Swap], found: FusionMap) -> list[Swap]:
    """Which to try first: one at every place, then a second at every place, and so on.

    At a place the fusion whose effect's upper end is the highest comes first, for the map thinks
    well of it or is unsure; one that the map cannot tell about comes before all others.
    """

    def upper(swap: Swap) -> float:
        effect = found.find(swap.map_places, swap.new)
        return effect.high if effect else float("inf")

    places: dict[str, list[Swap]] = {}
    for swap in sorted(swaps, key=upper, reverse=True):
        places.setdefault(swap.place, []).append(swap)
    turns = [(turn, swap) for swaps in places.values() for turn, swap in enumerate(swaps)]
    return [swap for _, swap in sorted(turns, key=lambda pair: (pair[0], pair[1].place))]


@dataclass(frozen=True)
class Comparison:
    """What a swap does to accuracy (between 0 and 1): `effect` is of new minus old.

    None where fewer than two seeds have both. `adjusted` is its p by Holm over all swaps.
    """

    swap: Swap
    seeds: int
    effect: Effect | None
    adjusted: float = 1.0

    @property
    def judgement(self) -> str:
        if self.effect is None:
            return "too few seeds"
        if self.adjusted >= ALPHA:
            return "not shown"
        return f"{self.swap.new if self.effect.estimate > 0 else self.swap.old} is better"


def compare(
    original: str, swaps: Sequence[Swap], results: Sequence[Result], *, validation: int
) -> list[Comparison]:
    """Each swap that was tried against the network of the key `original`, in their order.

    `validation` is the number of images that accuracies were measured on.
    """
    trained: dict[str, dict[int, Result]] = {}
    for result in results:
        repeats = trained.setdefault(result.key, {})
        if result.accuracy is not None:
            repeats[result.repeat] = result
    first, found = trained.get(original, {}), []
    for swap in swaps:
        second = trained.get(swap.architecture.key)
        if second is None:
            continue
        both = sorted(first.keys() & second.keys())
        old, new = (judged([one[seed] for seed in both], validation) for one in (first, second))
        differences = [b - a for a, b in zip(old.accuracies, new.accuracies, strict=True)]
        images = new.scatter(old) if both else 0.0
        effect = paired(differences, quantum=1 / validation, beside=images)
        found.append(Comparison(swap, len(both), effect))
    tested = [one.effect.p for one in found if one.effect]
    adjusted = iter(holm(tested))
    return [
        Comparison(one.swap, one.seeds, one.effect, next(adjusted)) if one.effect else one
        for one in found
    ]
