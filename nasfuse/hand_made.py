"""The hand-made networks of a study, all of them, as a table: what each reached on which rung."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from nasfuse.costs import show_macs
from nasfuse.results import Result
from nasfuse.summary import fusion_text
from nasfuse.tables import plain

HEADING = "Hand-made networks at the same budget"
MEANING = (
    "Each got the recipe of the search, as far as it came: a rung is an amount of training, and "
    "only accuracies of one rung can be compared."
)
COSTS = ("hand-made", "trial", "MACs", "params")


def hand_made(results: Sequence[Result]) -> list[list[str]]:
    """Lines of cells, a header first, in the order they were proposed; nothing without any.

    A rung has a column, which is empty for a network that did not reach it.
    """
    reached: dict[str, dict[int, Result]] = {}
    for one in sorted(results, key=lambda result: result.number):
        if one.is_reference and one.status == "complete" and not one.repeat:
            reached.setdefault(one.key, {})[one.rung] = one
    rungs = sorted({rung for one in reached.values() for rung in one})
    header = [*COSTS, *(f"rung {rung}" for rung in rungs), "fusions"]
    return [header, *(_line(one, rungs) for one in reached.values())] if reached else []


def _line(reached: Mapping[int, Result], rungs: Sequence[int]) -> list[str]:
    one = reached[min(reached)]
    costs = [show_macs(one.macs), show_macs(one.params)]
    shares = [f"{reached[r].point.accuracy:.2%}" if r in reached else "" for r in rungs]
    return [one.origin, str(one.number), *costs, *shares, fusion_text(one.architecture)]


def markdown_section(results: Sequence[Result]) -> str:
    """The table with its heading, for report.md; nothing without such networks."""
    lines = hand_made(results)
    if not lines:
        return ""
    header, *body = ["| " + " | ".join(map(plain, line)) + " |" for line in lines]
    rule = "|---|" + "---:|" * (len(lines[0]) - 2) + "---|"
    return "\n".join([f"## {HEADING}", "", MEANING, "", header, rule, *body]) + "\n\n"


def html_section(results: Sequence[Result]) -> str:
    """The same for the page, escaped."""

    def cells(line: Sequence[str], tag: str) -> str:
        marks = ["", *[' class="n"'] * (len(line) - 2), ""]
        pairs = zip(marks, line, strict=True)
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in pairs)

    lines = hand_made(results)
    if not lines:
        return ""
    head = f"<thead><tr>{cells(lines[0], 'th')}</tr></thead>"
    body = "".join(f"<tr>{cells(line, 'td')}</tr>" for line in lines[1:])
    table = f"<table>{head}<tbody>{body}</tbody></table>"
    return f'<h2>{HEADING}</h2><p>{MEANING}</p><div class="table">{table}</div>'
