"""What a study says about fusions, drawn: fusion_map.png, fusion_swaps.png, fusions.html, CSV.

What they show is computed in fusion_map.py and swaps.py.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nasfuse.effects import CONFIDENCE
from nasfuse.files import write_bytes
from nasfuse.fusion_map import FusionMap
from nasfuse.fusion_words import (
    Swapped,
    Table,
    comma_separated,
    map_sentences,
    map_table,
    markdown,
    swap_sentences,
    swap_table,
)
from nasfuse.report import STYLE
from nasfuse.tables import plain

MAP, SWAPS = "fusion_map.png", "fusion_swaps.png"
LARGEST = 40  # columns of a heat map that are still readable
BETTER, WORSE, OPEN = "#0072B2", "#D55E00", "#8C8C8C"  # Okabe and Ito


def map_picture(found: FusionMap) -> bytes:
    """Two heat maps: how often each fusion stands on the front, and what it does to accuracy."""
    fusions = list(dict.fromkeys(cell.fusion for cell in found.cells))[:LARGEST]
    counted = found.places
    judged = list(dict.fromkeys(cell.place for cell in found.estimated))
    heights = [len(counted) + 0.5, *([len(judged) + 0.5] if judged else [])]
    size = (3.2 + 0.92 * len(fusions), 2.0 + 0.5 * sum(heights) + 0.9 * len(heights))
    figure = _figure(size)
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw(panels[0], _counts(found, counted, fusions), (counted, fusions))
    panels[0].set_title(
        f"networks with it: on the front of {found.front}, of all {found.networks}",
        fontsize=10,
        loc="left",
    )
    if judged:
        _draw(panels[1], _effects(found, judged, fusions), (judged, fusions))
        panels[1].set_title(
            "points of accuracy against the mean at the place, ± half the 95 % interval, at equal "
            "MACs\n** shown after Holm's correction, faint: the interval includes 0",
            fontsize=10,
            loc="left",
        )
    return _png(figure)


Tile = tuple[str, str, float]  # text, colour, how strong it is


def _counts(
    found: FusionMap, places: Sequence[str], fusions: Sequence[str]
) -> dict[tuple[int, int], Tile]:
    tiles = {}
    for cell in found.cells:
        if cell.place in places and cell.fusion in fusions:
            where = places.index(cell.place), fusions.index(cell.fusion)
            share = cell.front / max(1, found.front)
            tiles[where] = (f"{cell.front} / {cell.networks}", BETTER, 0.85 * share)
    return tiles


def _effects(
    found: FusionMap, places: Sequence[str], fusions: Sequence[str]
) -> dict[tuple[int, int], Tile]:
    largest = max(abs(cell.effect.estimate) for cell in found.estimated if cell.effect)
    tiles: dict[tuple[int, int], Tile] = {}
    for cell in found.cells:
        if cell.place not in places or cell.fusion not in fusions:
            continue
        where = places.index(cell.place), fusions.index(cell.fusion)
        effect = cell.effect
        if effect is None:
            tiles[where] = ("too few", OPEN, 0.1)
            continue
        reach = (effect.high - effect.low) / 2
        mark = "**" if cell.shown else ""
        text = f"{100 * effect.estimate:+.1f}{mark}\n±{100 * reach:.1f}"
        strength = abs(effect.estimate) / max(largest, 1e-9)
        faint = 0.25 if effect.low <= 0 <= effect.high else 0.85
        tiles[where] = (text, BETTER if effect.estimate > 0 else WORSE, faint * strength)
    return tiles


def _draw(
    axes: Any, tiles: dict[tuple[int, int], Tile], names: tuple[Sequence[str], Sequence[str]]
) -> None:
    from matplotlib.colors import to_rgb

    rows, columns = names
    for (row, column), (text, colour, strength) in tiles.items():
        mixed = [1 - strength * (1 - part) for part in to_rgb(colour)]
        axes.add_patch(_square(column, row, mixed))
        dark = sum(mixed) < 1.5
        look = {"ha": "center", "va": "center", "fontsize": 8}
        axes.text(column, row, text, color="white" if dark else "#222", **look)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _square(column: int, row: int, colour: Sequence[float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, facecolor=colour, edgecolor="#ddd")


def swaps_picture(swapped: Sequence[Swapped]) -> bytes:
    """Every swap's difference with its interval; coloured where it is shown."""
    shown = [one for one in swapped if any(c.effect for c in one.comparisons)]
    heights = [2 + len(one.comparisons) for one in shown]
    figure = _figure((9, 0.8 + 0.3 * sum(heights)))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, one in zip(panels, shown, strict=True):
        _draw_swaps(axes, one)
    return _png(figure)


def _draw_swaps(axes: Any, swapped: Swapped) -> None:
    tested = [one for one in swapped.comparisons if one.effect]
    for row, one in enumerate(tested):
        assert one.effect
        low, middle, high = (
            100 * value for value in (one.effect.low, one.effect[0], one.effect.high)
        )
        judged = one.judgement.endswith("is better")
        colour = (BETTER if middle > 0 else WORSE) if judged else OPEN
        axes.plot([low, high], [row, row], color=colour, lw=2)
        axes.plot([middle], [row], "o", color=colour, ms=6)
    axes.axvline(0, color="#222", lw=1)
    axes.set_yticks(range(len(tested)), [one.swap.text for one in tested], fontsize=9)
    axes.set(ylim=(len(tested) - 0.5, -0.5))
    axes.set_xlabel(
        f"points of accuracy that the swap adds, {CONFIDENCE:.0%} interval; "
        "coloured: shown after Holm's correction",
        fontsize=9,
    )
    axes.set_title(f"swaps of trial {swapped.original.number}", fontsize=10, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def fusion_section(found: FusionMap, swapped: Sequence[Swapped]) -> str:
    """What report.md says of fusions, as Markdown; nothing where there is no choice of any."""
    if not found.cells:
        return ""
    parts = ["## Fusions", *map(plain, map_sentences(found)), f"![fusion map]({MAP})"]
    parts.append(markdown(map_table(found)))
    for one in swapped:
        parts += ["## Swaps", *map(plain, swap_sentences(one)), markdown(swap_table(one))]
    if swapped:
        parts.append(f"![swaps]({SWAPS})")
    return "\n\n".join(parts) + "\n"


def _page(
    found: FusionMap, swapped: Sequence[Swapped], pictures: dict[str, bytes], title: str
) -> str:
    """One HTML file that needs no network; everything from outside is escaped."""
    body = [f"<h1>{html.escape(title)}: fusions</h1>", *_paragraphs(map_sentences(found))]
    body += [_image(pictures[MAP], "fusion map"), _html(map_table(found))]
    for one in swapped:
        body += [*_paragraphs(swap_sentences(one)), _html(swap_table(one))]
    if SWAPS in pictures:
        body.append(_image(pictures[SWAPS], "swaps"))
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}: fusions</title><style>{STYLE}\n"
        "img{max-width:100%;background:#fff}</style></head><body>"
    )
    return "\n".join([head, *body, "</body></html>"])


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(line)}</p>" for line in lines]


def _image(content: bytes, name: str) -> str:
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def _html(table: Table) -> str:
    def row(line: Sequence[str], tag: str) -> str:
        marks = ["" if number < table.words else ' class="n"' for number in range(len(line))]
        cells = zip(marks, line, strict=True)
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in cells)

    lines = "".join(f"<tr>{row(line, 'td')}</tr>" for line in table.lines)
    head = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return f'<div class="table"><table>{head}<tbody>{lines}</tbody></table></div>'


def write_fusions(
    folder: Path, found: FusionMap, swapped: Sequence[Swapped], *, title: str
) -> None:
    """Write the pictures, the page and the tables into `folder`, each whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    if not found.cells:
        return
    pictures = {MAP: map_picture(found)}
    if any(c.effect for one in swapped for c in one.comparisons):
        pictures[SWAPS] = swaps_picture(swapped)
    page = _page(found, swapped, pictures, title)
    texts = {**comma_separated(found, swapped), "fusions.html": page}
    for name, content in {**pictures, **{n: t.encode() for n, t in texts.items()}}.items():
        write_bytes(folder / name, content)
