"""A study's report: front.html, front.png, front.csv and report.md.

What they show is computed in summary.py and curves.py; the page is drawn in page.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nasfuse.comparison import Beside
from nasfuse.curves import COSTS, GREY, PURPLE, Series, along, costs, repeated, series
from nasfuse.files import write_bytes
from nasfuse.hand_made import markdown_section
from nasfuse.page import draw, page
from nasfuse.results import Result
from nasfuse.summary import Row, Summary, front_rows, sentences, summarise
from nasfuse.tables import csv_table, markdown_table, plain

__all__ = ["Row", "Summary", "draw", "front_rows", "summarise", "write_report"]


def picture(results: Sequence[Result], summary: Summary, title: str) -> bytes:
    """The front as a PNG of 1000 x 650 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    cost = costs(results)[0]
    labels = {"xlabel": COSTS[cost].axis, "ylabel": "validation accuracy (%)"}
    axes = figure.add_subplot(xscale="log", **labels)
    axes.set_title(title, parse_math=False)
    for one in series(results):
        if one.results and not one.faint and one.cost in (None, cost):
            _plot(axes, one, cost)
    _plot_finals(axes, summary, cost)
    if summary.best is None:
        axes.text(0.5, 0.5, "no evaluation is complete yet", transform=axes.transAxes, ha="center")
        axes.set_xlim(summary.budget / 1e8, summary.budget / 1e6 * 1.2)
    if cost == "macs":
        axes.axvline(summary.budget / 1e6, color=GREY, ls="--", label="budget")
    _mark_costs(axes)
    axes.legend(loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plot(axes: Any, one: Series, cost: str) -> None:
    marker = one.look["marker"]
    joined = "-" if "lines" in one.look["mode"] else ""
    symbol = "D" if marker["symbol"] == "diamond" else "o"
    xs = [along(r, cost) for r in one.results]
    ys = [100 * r.point.accuracy for r in one.results]
    look = {"color": marker["color"], "ms": marker["size"] * 0.8, "drawstyle": "steps-post"}
    axes.plot(xs, ys, f"{symbol}{joined}", label=one.name, **look)


def _plot_finals(axes: Any, summary: Summary, cost: str) -> None:
    finals = repeated(summary.verdict)
    if finals:
        xs = [along(one.result, cost) for one in finals]
        ys, bars = [one.mean for one in finals], [one.deviation for one in finals]
        label = "finals: mean and deviation of seeds"
        axes.errorbar(xs, ys, bars, fmt="s", color=PURPLE, capsize=4, label=label, zorder=5)


def _mark_costs(axes: Any) -> None:
    """Plain numbers along the cost: 1, 2, 5 in each power of ten, or evenly where it is narrow."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    low, high = axes.get_xlim()
    wide = high / low > 8
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(7))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)


def _markdown(summary: Summary, title: str, more: str) -> str:
    lines = "\n\n".join(map(plain, sentences(summary)))
    return f"# {plain(title)}\n\n{lines}\n\n{markdown_table(summary.front)}\n{more}"


def write_report(
    folder: Path,
    results: Sequence[Result],
    summary: Summary,
    *,
    title: str,
    more: str = "",
    compared: Beside | None = None,
) -> None:
    """Write the four files into `folder`, each whole or not at all.

    `summary` is that of the results, `more` is Markdown that follows in report.md, `compared` what
    the page sets beside the networks.

    Raises:
        StorageError: the folder cannot be written.
    """
    files = {
        "front.html": page(results, summary, title, compared).encode(),
        "front.png": picture(results, summary, title),
        "front.csv": csv_table(summary.front).encode(),
        "report.md": _markdown(summary, title, markdown_section(results) + more).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
