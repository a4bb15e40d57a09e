"""The page of a study: one HTML file with everything in it, that needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from nasfuse.comparison import Beside
from nasfuse.costs import show_macs
from nasfuse.curves import (
    BLUE,
    COSTS,
    GREY,
    PURPLE,
    Growth,
    Repeated,
    Series,
    along,
    costs,
    growth,
    repeated,
    series,
    ticks,
)
from nasfuse.hand_made import html_section
from nasfuse.results import Result
from nasfuse.summary import Summary, fusion_text, sentences
from nasfuse.tables import html_table

STYLE = """
:root{color-scheme:light dark;--ink:#222;--page:#fff;--rule:#ddd;--box:#f4f4f4}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--page:#16181d;--rule:#3a3d44;--box:#22252c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
margin:0 auto;padding:12px 16px;max-width:1240px}
h1{font-size:1.3rem;margin:.2em 0;overflow-wrap:anywhere} h2{font-size:1.05rem;margin:1.2em 0 .2em}
p{margin:.25em 0;overflow-wrap:anywhere} a{color:inherit}
code:not(:empty){background:var(--box);padding:1px 4px;border-radius:3px;overflow-wrap:anywhere}
#chosen{background:var(--box);padding:6px 10px;border-radius:4px;min-height:1.5em}
.table{overflow-x:auto} table{border-collapse:collapse;margin-top:8px;font-size:.9rem}
th,td{text-align:left;padding:3px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}
"""

# plotly draws its own texts and lines, so the page's colours have to be handed to it
THEME = """
const dark = matchMedia('(prefers-color-scheme: dark)');
function theme() {
  const ink = dark.matches ? '#ddd' : '#222', rule = dark.matches ? '#3a3d44' : '#e3e3e3';
  const page = dark.matches ? '#16181d' : '#fff';
  for (const plot of document.querySelectorAll('.plotly-graph-div')) {
    const change = {'font.color': ink, 'xaxis.gridcolor': rule, 'yaxis.gridcolor': rule,
      'hoverlabel.bgcolor': page, 'hoverlabel.font.color': ink};
    Plotly.relayout(plot, change);
  }
}
dark.addEventListener('change', theme);
theme();
"""

# a click on a network says what it is below the plot; files are beside the page only in a study
CHOOSE = """
document.getElementById('front').on('plotly_click', event => {
  const point = event.points[0], key = point.customdata;
  if (!key) return;
  const place = document.getElementById('chosen'), link = document.createElement('a');
  place.innerHTML = point.hovertext + '<br>';
  link.textContent = 'architecture.json';
  link.href = '../trials/' + key + '/architecture.json';
  const command = document.createElement('code');
  command.textContent = place.dataset.command + ' ' + key;
  place.append(command, ' ');
  if (location.protocol === 'file:') place.append(link);
});
"""


def draw(results: Sequence[Result], budget: int, finals: Sequence[Repeated] = ()) -> dict[str, Any]:
    """The plotly figure, with a menu for the cost on the x axis. `budget` in MACs."""
    drawn, names = series(results), costs(results)
    traces = [*map(_trace, drawn), _finals_trace(finals), _budget_trace(drawn, budget)]
    views = {cost: _view(drawn, finals, cost, budget=budget) for cost in names}
    first = next(iter(views))
    for trace, x, visible in zip(traces, *views[first].values(), strict=True):
        trace.update(x=x, visible=visible)
    axes = {cost: _axis(view, COSTS[cost].axis) for cost, view in views.items()}
    buttons = [
        {"label": COSTS[cost].name, "method": "update", "args": [view, axes[cost]]}
        for cost, view in views.items()
    ]
    return {"data": traces, "layout": _layout(buttons, axes[first])}


def _view(
    drawn: Sequence[Series], finals: Sequence[Repeated], cost: str, *, budget: int
) -> dict[str, list[Any]]:
    """Where every trace lies along `cost`, in millions, and whether it is shown."""
    xs: list[list[float | None]] = [[along(r, s.cost or cost) for r in s.results] for s in drawn]
    shown = ["legendonly" if s.faint else s.cost in (None, cost) for s in drawn]
    again: list[float | None] = [along(one.result, cost) for one in finals]
    limit = budget / 1e6 if cost in ("macs", "thop") else None
    return {"x": [*xs, again, [limit, limit]], "visible": [*shown, bool(finals), limit is not None]}


def _axis(view: dict[str, list[Any]], title: str) -> dict[str, Any]:
    """The title and the ticks of the x axis for what is shown of these traces."""
    shown = zip(view["x"], view["visible"], strict=True)
    values = [x for xs, visible in shown for x in xs if x and visible is True]
    marks = ticks(min(values), max(values)) if values else []
    return {
        "xaxis.title.text": title,
        "xaxis.tickvals": marks,
        "xaxis.ticktext": [f"{mark:g}" for mark in marks],
    }


def _trace(one: Series) -> dict[str, Any]:
    return {
        **one.look,
        "type": "scatter",
        "name": one.name,
        "y": [100 * r.point.accuracy for r in one.results],
        "hovertext": [_hover(r) for r in one.results],
        "hoverinfo": "text",
        "customdata": [r.key for r in one.results],
        "opacity": 0.5 if one.faint else 0.9,
        "legendgroup": "lower rungs" if one.faint else "",
        "legendrank": 2000 if one.faint else 1000,
    }


def _hover(one: Result) -> str:
    taken = f", {one.latency:.2f} ms" if one.latency is not None else ""
    return (
        f"<b>{one.point.accuracy:.2%}</b>, {show_macs(one.macs)} MACs "
        f"({show_macs(one.thop)} by thop), {show_macs(one.params)} parameters{taken}<br>"
        f"{fusion_text(one.architecture)}<br>"
        f"trial {one.number}, rung {one.rung}, {html.escape(one.origin)}, {html.escape(one.key)}"
    )


def _finals_trace(finals: Sequence[Repeated]) -> dict[str, Any]:
    """Means over fresh seeds with bars of one standard deviation: what can be expected again."""
    bars = {"type": "data", "array": [one.deviation for one in finals], "color": PURPLE}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "finals: mean and deviation of seeds",
        "marker": {"color": PURPLE, "symbol": "square", "size": 9},
        "y": [one.mean for one in finals],
        "error_y": {**bars, "thickness": 2, "width": 6},
        "hovertext": [
            f"<b>{one.mean:.2f}%</b>, mean of {one.seeds} fresh seeds, deviation "
            f"{one.deviation:.2f} points<br>{_hover(one.result)}"
            for one in finals
        ],
        "hoverinfo": "text",
        "customdata": [one.result.key for one in finals],
    }


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


_AXIS = {"zeroline": False, "ticks": "outside", "automargin": True}
_LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "hovermode": "closest",
    "hoverlabel": {"align": "left"},
}


def _layout(buttons: list[dict[str, Any]], axis: dict[str, Any]) -> dict[str, Any]:
    menu = {"type": "buttons", "direction": "right", "showactive": True, "buttons": buttons}
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"t": 0, "b": 4}}
    marks = {"tickvals": axis["xaxis.tickvals"], "ticktext": axis["xaxis.ticktext"]}
    return {
        **_LAYOUT,
        "height": 560,
        "margin": {"l": 56, "r": 16, "t": 48, "b": 120},
        "xaxis": {**_AXIS, **marks, "type": "log", "title": {"text": axis["xaxis.title.text"]}},
        "yaxis": {**_AXIS, "title": {"text": "validation accuracy (%)"}},
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "updatemenus": [{**menu, **place, "font": {"color": "#222"}, "bgcolor": "#f2f2f2"}],
    }


def draw_growth(own: Growth, other: Growth) -> dict[str, Any]:
    """The hypervolume over the networks tried, of this search and of a random one."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": one.tried,
            "y": one.volumes,
            "line": {"color": colour, "width": 2, "shape": "hv", "dash": dash},
        }
        for name, one, colour, dash in (
            ("this search", own, BLUE, "solid"),
            ("random search", other, GREY, "dash"),
        )
        if one.tried
    ]
    return {
        "data": traces,
        "layout": {
            **_LAYOUT,
            "height": 300,
            "margin": {"l": 56, "r": 16, "t": 8, "b": 70},
            "showlegend": True,
            "xaxis": {**_AXIS, "title": {"text": "networks tried"}},
            "yaxis": {**_AXIS, "title": {"text": "hypervolume"}},
            "legend": {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
        },
    }


def page(
    results: Sequence[Result],
    summary: Summary,
    title: str,
    compared: Beside | None = None,
) -> str:
    """One HTML file that needs no network; everything from outside is escaped."""
    lines = [f"<p>{html.escape(line)}</p>" for line in sentences(summary)]
    parts = lines
    if summary.best:
        parts = [
            *lines[:2],
            *_plots(results, summary, compared or Beside([], "", "nasfuse show")),
            "<h2>What it says</h2>",
            *lines[2:],
            f'<h2>The front</h2><div class="table">{html_table(summary.front)}</div>',
            html_section(results),
        ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            "</body></html>",
        ]
    )


def _plots(results: Sequence[Result], summary: Summary, compared: Beside) -> list[str]:
    from plotly.io import to_html

    settings = {"responsive": True, "displayModeBar": False}
    figure = draw(results, summary.budget, repeated(summary.verdict))
    grown = draw_growth(*growth(results, compared.random, budget=summary.budget))
    plot = to_html(figure, settings, full_html=False, div_id="front")
    second = to_html(
        grown,
        settings,
        full_html=False,
        include_plotlyjs=False,
        post_script=THEME + CHOOSE,
        div_id="growth",
    )
    return [
        plot,
        f'<p id="chosen" data-command="{html.escape(compared.show)}">'
        "A click on a network shows it here.</p>",
        "<h2>Hypervolume over the networks tried</h2>",
        second,
        f"<p>{html.escape(compared.hint)} <code>{html.escape(compared.make)}</code></p>",
    ]
