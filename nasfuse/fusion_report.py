"""What a study says about fusions, drawn: fusion_map.png, fusion_swaps.png, fusions.html, CSV.

What they show is computed in fusion_map.py and swaps.py.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasfuse.effects import CONFIDENCE
from nasfuse.files import write_bytes
from nasfuse.fusion_map import Cell, FusionMap
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
from nasfuse.page import STYLE
from nasfuse.tables import plain

MAP, SWAPS = "fusion_map.png", "fusion_swaps.png"
FEW, LARGEST = 8, 40  # columns of a heat map whose names fit side by side, and that are drawn
BETTER, WORSE, OPEN = "#0072B2", "#D55E00", "#8C8C8C"  # Okabe and Ito


def map_picture(found: FusionMap) -> bytes:
    """Two heat maps: how often each fusion stands on the front, and what it does to accuracy."""
    fusions = list(dict.fromkeys(cell.fusion for cell in found.cells))[:LARGEST]
    judged = list(dict.fromkeys(cell.place for cell in found.estimated))
    heights = [len(found.places), *([len(judged)] if judged else [])]
    size = (2.6 + 0.9 * len(fusions), 0.42 * sum(heights) + 1.5 * len(heights))
    figure = _figure(size)
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw(panels[0], _counts(found), (found.places, fusions))
    title = f"on the front (of {found.front} networks) / in all (of {found.networks})"
    panels[0].set_title(title, fontsize=10, loc="left")
    if judged:
        _draw(panels[1], _effects(found), (judged, fusions))
        title = (
            "effect on accuracy in points, ± half its 95 % interval, at equal MACs\n"
            "white: the interval includes 0; bold: shown after Holm's correction"
        )
        panels[1].set_title(title, fontsize=10, loc="left")
    return _png(figure)


class Tile(NamedTuple):
    """A square of a heat map: what it says, its colour, and how strong that is."""

    text: str
    colour: str
    strength: float
    bold: bool = False


Tiles = dict[tuple[str, str], Tile]
TOO_FEW = Tile("too few", OPEN, 0.15)


def _counts(found: FusionMap) -> Tiles:
    def tile(cell: Cell) -> Tile:
        return Tile(f"{cell.front} / {cell.networks}", BETTER, 0.85 * cell.front / found.front)

    return {(cell.place, cell.fusion): tile(cell) for cell in found.cells}


def _effects(found: FusionMap) -> Tiles:
    largest = max(abs(cell.effect.estimate) for cell in found.estimated if cell.effect)

    def tile(cell: Cell) -> Tile:
        if cell.effect is None:
            return TOO_FEW
        middle, low, high, _ = (100 * value for value in cell.effect)
        sure = low > 0 or high < 0
        strength = 0.15 + 0.7 * abs(cell.effect.estimate) / largest if sure else 0.0
        text = f"{round(middle, 1) + 0.0:+.1f}\n±{(high - low) / 2:.1f}"
        return Tile(text, BETTER if middle > 0 else WORSE, strength, cell.shown)

    return {(cell.place, cell.fusion): tile(cell) for cell in found.cells}


def _draw(axes: Any, tiles: Tiles, names: tuple[Sequence[str], Sequence[str]]) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    rows, columns = names
    for row, place in enumerate(rows):
        for column, fusion in enumerate(columns):
            if (place, fusion) not in tiles:
                continue
            tile = tiles[place, fusion]
            colour = [1 - tile.strength * (1 - part) for part in to_rgb(tile.colour)]
            box = (column - 0.47, row - 0.45), 0.94, 0.9
            axes.add_patch(Rectangle(*box, facecolor=colour, edgecolor="#ddd"))
            look = {"ha": "center", "va": "center", "fontsize": 8, "linespacing": 0.95}
            ink, weight = "white" if sum(colour) < 1.6 else "#222", "bold" if tile.bold else None
            axes.text(column, row, tile.text, color=ink, weight=weight, **look)
    turned = {"rotation": 30, "ha": "right"} if len(columns) > FEW else {}
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns, fontsize=9, **turned)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


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
