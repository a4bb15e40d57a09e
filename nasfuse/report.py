"""A study's report, drawn: front.html, front.png, front.csv and report.md.

What they show is computed in summary.py. Values of different rungs are never joined by a line.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasfuse.costs import show_macs
from nasfuse.files import write_bytes
from nasfuse.pareto import Point, front
from nasfuse.results import Result, complete
from nasfuse.summary import (
    Row,
    Summary,
    front_rows,
    fusion_text,
    sentences,
    summarise,
)
from nasfuse.tables import csv_table, html_table, markdown_table, plain

__all__ = ["Row", "Summary", "front_rows", "summarise", "write_report"]

COSTS = {
    "macs": "MACs (millions)",
    "params": "parameters (millions)",
    "thop": "MACs by thop (millions)",
    "latency": "milliseconds for one image",
}
# Okabe and Ito's palette, which colour-blind readers tell apart
BLUE, SKY, VERMILION, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#8C8C8C"

STYLE = """
:root{color-scheme:light dark;--ink:#222;--page:#fff;--rule:#ddd}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--page:#16181d;--rule:#3a3d44}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
margin:0 auto;padding:12px 16px;max-width:1240px}
h1{font-size:1.3rem;margin:.2em 0;overflow-wrap:anywhere} p{margin:.25em 0}
.table{overflow-x:auto} table{border-collapse:collapse;margin-top:8px;font-size:.9rem}
th,td{text-align:left;padding:3px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}
"""

# plotly draws its own texts and lines, so the page's colours have to be handed to it
THEME = """
const plot = document.getElementById('{plot_id}');
const dark = matchMedia('(prefers-color-scheme: dark)');
function theme() {
  const ink = dark.matches ? '#ddd' : '#222', rule = dark.matches ? '#3a3d44' : '#e3e3e3';
  Plotly.relayout(plot, {'font.color': ink, 'xaxis.gridcolor': rule, 'yaxis.gridcolor': rule});
}
dark.addEventListener('change', theme);
theme();
"""


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
    fronts = [Series("front", _front(trained, cost), lined, cost) for cost in _costs(results)]
    diamonds = _marker(GREEN, "diamond", 11)
    uniforms = Series("hand-made", uniform, diamonds)
    return [*lower, Series("trials", found, small), *fronts, uniforms]


def _costs(results: Sequence[Result]) -> list[str]:
    """The costs that are known of these networks, the study's objective first."""
    trained = [result for result in results if result.status == "complete"]
    names = [n for n in COSTS if all(getattr(r, n) is not None for r in trained)]
    objective = trained[0].objective if trained else "macs"
    return sorted(names, key=lambda name: name != objective)


def _along(result: Result, cost: str) -> float:
    """Where a network lies on the axis of a cost."""
    value = float(getattr(result, cost))
    return value if cost == "latency" else value / 1e6


def _marker(colour: str, symbol: str, size: int, *, mode: str = "markers") -> dict[str, Any]:
    marker = {"color": colour, "symbol": symbol, "size": size}
    # steps: no network is known between two of the front, and at a cost the cheaper one holds
    return {"mode": mode, "marker": marker, "line": {"color": colour, "width": 2, "shape": "hv"}}


def _front(trained: Sequence[Result], cost: str) -> list[Result]:
    """The front when `cost` is what is to be low."""
    points = [Point(r.point.accuracy, getattr(r, cost)) for r in trained]
    return [trained[i] for i in front(points)]


def draw(results: Sequence[Result], budget: int) -> dict[str, Any]:
    """The plotly figure, with a menu for the cost on the x axis. `budget` in MACs."""
    drawn = series(results)
    traces = [*map(_trace, drawn), _budget_trace(drawn, budget)]
    views = {cost: _view(drawn, cost, budget) for cost in _costs(results)}
    first = next(iter(views))
    for trace, x, visible in zip(traces, *views[first].values(), strict=True):
        trace.update(x=x, visible=visible)
    buttons = [
        {"label": cost, "method": "update", "args": [view, {"xaxis.title.text": COSTS[cost]}]}
        for cost, view in views.items()
    ]
    return {"data": traces, "layout": _layout(buttons, COSTS[first])}


def _view(drawn: Sequence[Series], cost: str, budget: int) -> dict[str, list[Any]]:
    """Where every trace lies along `cost`, in millions, and whether it is shown."""
    xs: list[list[float | None]] = [[_along(r, s.cost or cost) for r in s.results] for s in drawn]
    shown = ["legendonly" if s.faint else s.cost in (None, cost) for s in drawn]
    limit = budget / 1e6 if cost in ("macs", "thop") else None
    return {"x": [*xs, [limit, limit]], "visible": [*shown, True]}


def _trace(one: Series) -> dict[str, Any]:
    return {
        **one.look,
        "type": "scatter",
        "name": one.name,
        "y": [100 * r.point.accuracy for r in one.results],
        "hovertext": [_hover(r) for r in one.results],
        "hoverinfo": "text",
        "opacity": 0.5 if one.faint else 0.9,
        "legendgroup": "lower rungs" if one.faint else "",
        "legendrank": 2000 if one.faint else 1000,
    }


def _hover(one: Result) -> str:
    costs = f"{show_macs(one.macs)} MACs, {show_macs(one.params)} parameters"
    return (
        f"<b>{one.point.accuracy:.2%}</b>, {costs}, {show_macs(one.thop)} by thop<br>"
        f"{fusion_text(one.architecture)}<br>"
        f"trial {one.number}, rung {one.rung}, {html.escape(one.origin)}, {html.escape(one.key)}"
    )


def _budget_trace(drawn: Sequence[Series], budget: int) -> dict[str, Any]:
    """A trace, because a shape on a log axis would stretch the axis without end."""
    ys = [100 * r.point.accuracy for s in drawn if not s.faint for r in s.results] or [0, 100]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"budget {show_macs(budget)}",
        "y": [min(ys), max(ys)],
        "line": {"color": GREY, "dash": "dash", "width": 2},
        "hoverinfo": "name",
    }


def _layout(buttons: list[dict[str, Any]], title: str) -> dict[str, Any]:
    menu = {"type": "buttons", "direction": "right", "showactive": True, "buttons": buttons}
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"t": 0, "b": 4}}
    axis = {"zeroline": False, "ticks": "outside", "automargin": True}
    return {
        "height": 560,
        "margin": {"l": 56, "r": 16, "t": 48, "b": 120},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "xaxis": {**axis, "type": "log", "title": {"text": title}},
        "yaxis": {**axis, "title": {"text": "validation accuracy (%)"}},
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "updatemenus": [{**menu, **place, "font": {"color": "#222"}, "bgcolor": "#f2f2f2"}],
    }


def page(results: Sequence[Result], summary: Summary, title: str) -> str:
    """One HTML file that needs no network; everything from outside is escaped."""
    from plotly.io import to_html

    plot = ""
    if summary.best:
        figure = draw(results, summary.budget)
        settings = {"responsive": True, "displayModeBar": False}
        plot = to_html(figure, settings, full_html=False, post_script=THEME, div_id="front")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *(f"<p>{html.escape(line)}</p>" for line in sentences(summary)),
            f'{plot}<div class="table">{html_table(summary.front)}</div></body></html>',
        ]
    )


def picture(results: Sequence[Result], summary: Summary, title: str) -> bytes:
    """The front as a PNG of 1000 x 650 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    cost = _costs(results)[0]
    axes = figure.add_subplot(xlabel=COSTS[cost], ylabel="validation accuracy (%)", xscale="log")
    axes.set_title(title, parse_math=False)
    for one in series(results):
        if one.results and not one.faint and one.cost in (None, cost):
            _plot(axes, one, cost)
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
    xs = [_along(r, cost) for r in one.results]
    ys = [100 * r.point.accuracy for r in one.results]
    look = {"color": marker["color"], "ms": marker["size"] * 0.8, "drawstyle": "steps-post"}
    axes.plot(xs, ys, f"{symbol}{joined}", label=one.name, **look)


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
    *,
    title: str,
    budget: int,
    validation: int,
    more: str = "",
) -> None:
    """Write the four files into `folder`, each whole or not at all.

    `budget` in MACs, `validation` is the number of validation images, `more` is Markdown that
    follows in report.md.

    Raises:
        StorageError: the folder cannot be written.
    """
    summary = summarise(results, budget=budget, validation=validation)
    files = {
        "front.html": page(results, summary, title).encode(),
        "front.png": picture(results, summary, title),
        "front.csv": csv_table(summary.front).encode(),
        "report.md": _markdown(summary, title, more).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
