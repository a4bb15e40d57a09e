"""What the terminal shows while a search runs, and what it shows in the end."""

from __future__ import annotations

import logging
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nasfuse.costs import show_macs
from nasfuse.data.decoding import PROGRESS
from nasfuse.errors import UsageError
from nasfuse.recipe import Rung
from nasfuse.results import Result, complete, result_front
from nasfuse.searching.schedule import Listener, Progress
from nasfuse.searching.study import Settings
from nasfuse.searching.worker import Job
from nasfuse.stopping import terminal_mode
from nasfuse.summary import fusion_text

ROWS = 8  # of the front, in the live display
REDRAWN, WRITTEN = 0.5, 10.0  # seconds between two reports of decoding, to a terminal and elsewhere
STOPPING = "stopping after the running steps (Ctrl-C once more to stop now)"


def front_table(results: Sequence[Result], *, rows: int | None = None) -> Table:
    """The front as a table, the most accurate network first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    timed = any(result.latency is not None for result in results)
    for name in ("accuracy", "MACs", "params", *(["latency"] if timed else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fusions, stage by stage", ratio=1, overflow="fold")
    table.add_column("from", no_wrap=True)
    for result in list(reversed(results))[:rows]:
        taken = "" if result.latency is None else f"{result.latency:.2f} ms"
        table.add_row(
            str(result.number),
            f"{result.point.accuracy:.4f}",
            show_macs(result.macs),
            show_macs(result.params),
            *([taken] if timed else []),
            fusion_text(result.architecture),
            result.origin,
        )
    return table


def clock(seconds: float) -> str:
    """Seconds for people: 42 s, 3:05 min, 2:05 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def parse_seconds(text: str | None) -> float | None:
    """Seconds of a time such as 90s, 30m, 2h or 300.

    Raises:
        UsageError: the text is no positive time.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(
            f"'{text}' is not a time",
            where="--time-limit",
            why="a time is a positive number of seconds, or has one of the units s, m, h",
            fix="--time-limit 30m",
        )
    return seconds


def say(console: Console, text: str) -> None:
    """A line of plain text, not read as markup and never broken: paths and commands are copied."""
    console.print(text, markup=False, soft_wrap=True)


def tell(console: Console, text: str, *, indent: int = 0) -> None:
    """A sentence: on a terminal broken between words, further lines indented; else one line."""
    wide = console.width if console.is_terminal else sys.maxsize
    lines = textwrap.wrap(text, wide, subsequent_indent=" " * indent, break_on_hyphens=False)
    for line in lines:
        say(console, line)


def plan_lines(settings: Settings, progress_words: str, *, size: int, train: int) -> list[str]:
    """The plan of a search, before it starts."""
    rungs = ", then the best of these: ".join(
        f"{rung_text(rung)} on {round(rung.share * train):,}" for rung in settings.recipe.rungs
    )
    return [
        f"study   {settings.name}",
        f"data    {settings.data}: {train:,} training images, {len(settings.classes)} classes",
        f"space   {settings.space_name}: about {size:.0e} networks before scaling, which begin at "
        f"{settings.search_space.resolution} pixels a side",
        f"budget  {budget_text(settings)} MACs an image (the FLOPs of mobile networks)",
        f"rungs   {rungs} images",
        f"limits  {progress_words}",
    ]


def budget_text(settings: Settings) -> str:
    """400M, or 100M to 400M where the front is to begin at a cost."""
    start, most = settings.front_from, show_macs(settings.budget)
    if start is None:
        return most
    return f"{show_macs(start)} to {most}" if start < settings.budget else f"all of {most}"


def rung_text(rung: Rung) -> str:
    """1 epoch, or 25% of 10 epochs."""
    part = "" if rung.stop == 1 else f"{rung.stop:.0%} of "
    return f"{part}{rung.epochs} epoch{'s' * (rung.epochs > 1)}"


def _done(progress: Progress) -> float | None:
    """The share of the search that is behind it, by time or by trials; None where nobody knows.

    As when all networks were tried and the best go to the top, which has no limit of its own.
    """
    limits, tried = progress.limits, len({r.key for r in progress.results})
    shares = []
    if limits.seconds:
        shares.append(min(1.0, progress.seconds / limits.seconds))
    if limits.trials and tried < limits.trials:
        shares.append(tried / limits.trials)
    return max(shares, default=None)


def status_line(progress: Progress) -> str:
    """One line on where the search stands."""
    results, top = progress.results, progress.study.settings.recipe.top
    front = result_front(results)
    of = f" of {progress.limits.trials}" if progress.limits.trials else ""
    counts = [
        f"{len(complete(results, 0))}{of} tried",
        f"{len(complete(results, top))} fully trained",
        f"{len(front)} on the front",
    ]
    if front:
        counts.append(f"best {front[-1].point.accuracy:.4f} at {show_macs(front[-1].macs)}")
    again = sum(r.status == "complete" and r.repeat > 0 for r in results)
    if again:
        counts.append(f"{again} trained again for the finals")
    return ", ".join([*counts, *_untrained(results)])


def _untrained(results: Sequence[Result]) -> list[str]:
    """How many were too slow to be trained, and how many failed, where there are such."""
    kinds = {"too slow": sum(bool(r.too_slow) for r in results)}
    kinds["failed"] = sum(r.broke for r in results)
    return [f"{count} {kind}" for kind, count in kinds.items() if count]


def _screen(progress: Progress) -> RenderableType:
    front, top = result_front(progress.results), progress.study.settings.recipe.top
    parts: list[RenderableType] = [*_clocks(progress), *map(Text, rung_lines(progress.results))]
    if front:
        best = front[-1]
        parts.append(Text(f"best    {best.point.accuracy:.4f} at {show_macs(best.macs)} MACs"))
        state = "" if best.rung == top else f" (of rung {best.rung}, so far)"
        parts += [Text(f"front{state}", style="bold"), front_table(front, rows=ROWS)]
    if running := list(progress.running.values()):
        parts.append(_running_table(running, progress))
    if progress.listening:
        parts.append(Text(progress.listening, style="dim", no_wrap=True, overflow="ellipsis"))
    if progress.stopping:
        parts.append(Text(STOPPING))
    return Group(*parts)


def _clocks(progress: Progress) -> Iterator[RenderableType]:
    """How far it is, the time gone and left, and the work of all workers together."""
    left = "" if progress.left is None else f", {clock(progress.left)} left"
    used = clock(sum(result.seconds for result in progress.results))
    text = f"{clock(progress.seconds)} gone{left}, {used} of training"
    done = _done(progress)
    if done is None:
        yield Text(text)
    else:
        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=1.0, completed=done, width=24), Text(text))
        yield line


def rung_lines(results: Sequence[Result]) -> list[str]:
    """Evaluations by rung: how many there are, were repeated for the finals, or failed."""
    lines = []
    for rung in sorted({result.rung for result in results}):
        here = [result for result in results if result.rung == rung]
        again = sum(r.status == "complete" and r.repeat > 0 for r in here)
        counts = [f"{len(complete(results, rung))} trained"]
        counts += [f"{again} again with other seeds"] if again else []
        lines.append(f"rung {rung}  {', '.join([*counts, *_untrained(here)])}")
    return lines or ["rung 0  nothing trained yet"]


def _running_table(running: Sequence[tuple[Job, int, float]], progress: Progress) -> Table:
    """A line a job: its rung and epoch, and the accuracy that its network had before."""
    known = {r.key: r for r in progress.results if r.status == "complete" and not r.repeat}
    rungs = progress.study.settings.recipe.rungs
    table = Table(box=None, pad_edge=False, header_style="bold", style="dim")
    for name in ("running", "rung", "epoch", "loss", "accuracy so far"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fusions, stage by stage", ratio=1, no_wrap=True, overflow="ellipsis")
    for job, epoch, loss in running:
        before = known.get(job.key)
        table.add_row(
            str(job.number),
            f"{job.rung}, seed {job.repeat + 1}" if job.repeat else str(job.rung),
            f"{epoch + 1}/{rungs[job.rung].epochs}",
            f"{loss:.3f}" if epoch else "",
            f"{before.point.accuracy:.4f} (rung {before.rung})" if before else "",
            fusion_text(job.architecture),
        )
    return table


class _Screen:
    """Drawn anew twice a second, so that times move between two results."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def __rich__(self) -> RenderableType:
        return Text("starting workers") if self.progress is None else _screen(self.progress)


@contextmanager
def watching(console: Console, *, quiet: bool) -> Iterator[Listener]:
    """A listener that shows progress: live on a terminal, a line a result elsewhere."""
    if quiet:
        yield lambda progress: None
    elif console.is_terminal:
        screen = _Screen()
        with _no_echo(), Live(screen, console=console, refresh_per_second=2, transient=True):

            def show(progress: Progress) -> None:
                screen.progress = progress

            yield show
    else:
        yield _Lines(console)


@contextmanager
def decoding(console: Console, *, quiet: bool) -> Iterator[None]:
    """Show how far images are decoded, where that takes long: live, or in dated lines elsewhere."""
    live = Live(console=console, refresh_per_second=2, transient=True)

    def draw(text: str) -> None:
        if text:
            live.start()
            live.update(Text(text), refresh=True)
        else:
            live.stop()

    def write(text: str) -> None:
        if text:
            _dated(console, text)

    terminal = console.is_terminal
    handler = _Decoding(draw if terminal else write, REDRAWN if terminal else WRITTEN)
    before = PROGRESS.level
    if not quiet:
        PROGRESS.addHandler(handler)
        PROGRESS.setLevel(logging.INFO)
    try:
        yield
    finally:
        PROGRESS.removeHandler(handler)
        PROGRESS.setLevel(before)
        live.stop()


class _Decoding(logging.Handler):
    """Hears of every few images, and shows it at most every so many seconds; "" when it is over."""

    def __init__(self, show: Callable[[str], None], every: float) -> None:
        super().__init__()
        self.show, self.every = show, every
        self.doing, self.began, self.shown = "", 0.0, 0.0  # since when, and when last

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        doing, done, total = record.args
        assert isinstance(done, int)
        assert isinstance(total, int)
        now = time.monotonic()
        if doing != self.doing:
            self.doing, self.began, self.shown = str(doing), now, now
        if done == total:
            self.doing = ""
            self.show("")
        elif now - self.shown >= self.every:
            self.shown = now
            left = (now - self.began) * (total - done) / max(1, done)
            self.show(f"{doing} images: {done:,} of {total:,}; {clock(left)} left")


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keep Ctrl-C from writing ^C into the display, and from dropping what is being drawn."""
    found = terminal_mode()
    if found is None:
        yield
        return
    import termios

    terminal, before = found
    local = (before[3] & ~termios.ECHOCTL) | termios.NOFLSH
    quiet = [*before[:3], local, *before[4:]]
    termios.tcsetattr(terminal, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class _Lines:
    """One dated line a finished evaluation, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self.console, self.shown, self.lock = console, -1, threading.Lock()
        self.stopping = self.open = False  # whether it was said already

    def __call__(self, progress: Progress) -> None:
        with self.lock:
            if self.shown < 0:  # a resumed search does not repeat what it already said
                self.shown = len(progress.results)
                if self.shown:
                    self._print(f"resuming after {status_line(progress)}")
            if progress.listening and not self.open:
                self.open = True
                self._print(progress.listening)
            for result in progress.results[self.shown :]:
                self._print(_line(result))
            self.shown = len(progress.results)
            if progress.stopping and not self.stopping:
                self.stopping = True
                self._print(f"{progress.stopping}: {STOPPING}")

    def _print(self, text: str) -> None:
        _dated(self.console, text)


def _dated(console: Console, text: str) -> None:
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    with suppress(BrokenPipeError):  # who reads has gone; the search goes on
        console.print(f"{now} {text}", markup=False, highlight=False, soft_wrap=True)


def _line(result: Result) -> str:
    again = f" seed {result.repeat + 1}" if result.repeat else ""
    name = f"trial {result.number:>3} rung {result.rung}{again}"
    costs = f"{show_macs(result.macs):>7} MACs  {show_macs(result.params):>6} params"
    if result.status == "failed":
        outcome = "failed" if result.broke else "too slow"
        return f"{name}  {outcome:<15}  {costs}  {result.cause}"
    fusions = fusion_text(result.architecture)
    return (
        f"{name}  accuracy {result.point.accuracy:.4f}  {costs}  {result.seconds:5.1f} s  {fusions}"
    )
