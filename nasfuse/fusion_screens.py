"""What `nasfuse explain` shows: trainings as they end, the map, the swaps, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from rich.console import Console
from rich.table import Table as Screen

from nasfuse.commands import next_commands
from nasfuse.costs import show_macs
from nasfuse.explaining import Explanation
from nasfuse.fusion_words import Table, map_sentences, map_table, swap_sentences, swap_table
from nasfuse.searching.schedule import Listener, Progress
from nasfuse.searching.study import Study

ON_FRONT, EFFECT = 2, 3  # columns of the map's table
MACS = 4  # of that of swaps


def swap_lines(console: Console) -> Listener:
    """A listener that prints one dated line a finished training."""
    shown = -1

    def listen(progress: Progress) -> None:
        nonlocal shown
        if shown < 0:
            shown = len(progress.results)
            if shown:
                _say(console, f"{shown} trainings are done already")
        for result in progress.results[shown:]:
            now = datetime.now().strftime("%H:%M:%S")
            came = result.cause if result.accuracy is None else f"accuracy {result.accuracy:.4f}"
            _say(
                console,
                f"{now} seed {result.repeat}  {came}  {show_macs(result.macs):>7} MACs  "
                f"{result.seconds:5.1f} s  {result.origin}",
            )
        shown = len(progress.results)

    return listen


def print_explanation(console: Console, study: Study, one: Explanation) -> None:
    """The map and the swaps as tables, each with what it shows in words."""
    _print(console, _short(map_table(one.found)), map_sentences(one.found))
    for swapped in one.swapped:
        _print(console, _narrow(swap_table(swapped)), swap_sentences(swapped))
    _say(console, f"report  {study.folder / 'report' / 'fusions.html'}")
    _say(console, f"swaps   {next_commands(study)['explain']}")


def _short(table: Table) -> Table:
    """The lines with an effect, or where there are none those of the front; files have all."""
    lines = [line for line in table.lines if line[EFFECT]]
    return table._replace(lines=lines or [line for line in table.lines if line[ON_FRONT][0] != "0"])


def _narrow(table: Table) -> Table:
    """Without the costs, which are equal but for what rounding leaves; files have them."""
    header, *lines = ([*line[:MACS], *line[MACS + 1 :]] for line in (table.header, *table.lines))
    return Table(header, list(lines), table.words)


def _print(console: Console, table: Table, sentences: Sequence[str]) -> None:
    screen = Screen(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for number, name in enumerate(table.header):
        words = number < table.words or not name
        screen.add_column(name, justify="left" if words else "right", no_wrap=number > 0)
    for line in table.lines:
        screen.add_row(*line)
    console.print(screen)
    console.print()
    for sentence in sentences:
        console.print(sentence, markup=False)
    console.print()


def _say(console: Console, text: str) -> None:
    with suppress(BrokenPipeError):  # who reads has gone; the trainings go on
        console.print(text, markup=False, soft_wrap=True)
