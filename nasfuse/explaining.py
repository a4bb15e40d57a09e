"""Explaining: what a study and its swaps say about fusions, from its folder to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasfuse.commands import next_commands
from nasfuse.comparison import beside
from nasfuse.costs import show_macs
from nasfuse.fusion_map import FusionMap, fusion_map
from nasfuse.fusion_report import fusion_section, write_fusions
from nasfuse.fusion_words import Swapped
from nasfuse.report import write_report
from nasfuse.results import Result
from nasfuse.searching.study import Study
from nasfuse.searching.swapping import swaps_of
from nasfuse.summary import summarise
from nasfuse.swaps import ORIGINAL, Comparison, compare, find_swaps, ordered


@dataclass(frozen=True)
class Explanation:
    """The map of a study's fusions, and what came of the swaps that were trained, by network."""

    found: FusionMap
    swapped: list[Swapped]


def explained(study: Study, results: Sequence[Result]) -> Explanation:
    """What is known by now; nothing is trained."""
    found, settings = fusion_map(results), study.settings
    trained = swaps_of(study).results
    originals = {r.key: r for r in trained if r.origin == ORIGINAL}
    swapped = []
    for key, original in originals.items():
        swaps = find_swaps(original.architecture, settings.search_space, settings.max_params)
        asked = ordered(swaps, found)
        comparisons = compare(key, asked, trained, validation=settings.validation)
        if comparisons:
            swapped.append(Swapped(original, sorted(comparisons, key=_by_place)))
    return Explanation(found, swapped)


def _by_place(one: Comparison) -> tuple[str, float]:
    """Place by place, at each the best swap first."""
    return one.swap.place, -one.effect.estimate if one.effect else 1.0


def write_study_report(study: Study, results: Sequence[Result]) -> Explanation:
    """All files of the study's report, from what has been trained by now.

    Raises:
        StorageError: the folder cannot be written.
    """
    settings, folder = study.settings, study.folder / "report"
    title = f"{settings.name}: {settings.data} within {show_macs(settings.budget)} MACs"
    explanation = explained(study, results)
    write_fusions(folder, *_parts(explanation), title=title)
    write_report(
        folder,
        results,
        summarise(results, budget=settings.budget, validation=settings.validation),
        title=title,
        compared=beside(study),
        more=fusion_section(*_parts(explanation)) + _next(study),
    )
    return explanation


def _next(study: Study) -> str:
    """What to type next, as Markdown."""
    lines = "\n".join(next_commands(study).values())
    return f"\n## Next\n\n```sh\n{lines}\n```\n"


def _parts(one: Explanation) -> tuple[FusionMap, list[Swapped]]:
    return one.found, one.swapped
