"""What is shown while a search runs: live on a terminal, a dated line a result elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from nasfuse import terminal as screens
from nasfuse.data.decoded import decoded
from nasfuse.data.decoding import BATCH, PROGRESS
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.screens import print_forecast
from nasfuse.searching.forecast import Forecast
from nasfuse.searching.limits import Limits
from nasfuse.searching.schedule import Progress
from nasfuse.searching.worker import Job
from nasfuse.terminal import (
    STOPPING,
    _done,
    decoding,
    front_table,
    rung_lines,
    status_line,
    tell,
    watching,
)

MakeResult = Callable[..., Result]


@pytest.fixture
def progress(make_result: MakeResult) -> Progress:
    """Three networks on rung 0, one of them on rung 1 and running on rung 2, and one failure."""
    settings = type("Settings", (), {"recipe": Recipe().with_epochs(5), "name": "s"})
    study: Any = type("Study", (), {"settings": settings, "folder": Path("s")})
    results = [
        make_result(0, accuracy=0.5, seconds=30.0),
        make_result(1, accuracy=0.6, seconds=31.0),
        make_result(2, status="failed", accuracy=None, loss=None, cause="out of memory"),
        make_result(1, rung=1, accuracy=0.7123, seconds=90.0),
    ]
    found = Progress(study, Limits(9, 600.0), results)
    one = results[1]
    job = Job(1, one.origin, 2, one.architecture)
    object.__setattr__(results[3], "key", job.key)  # the network that runs
    found.running["a"] = (job, 3, 0.75)
    return found


def shown(progress: Progress, *, width: int = 100) -> str:
    """The screen that a terminal of this width would show."""
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    with watching(console, quiet=False) as listen:
        listen(progress)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_a_terminal_shows_rungs_the_best_and_what_runs(progress: Progress) -> None:
    screen = shown(progress)
    for words in (
        "left, 2:32 min of training",
        "rung 0  2 trained, 1 failed",
        "rung 1  1 trained",
        "best    0.7123",
        "1     2    4/5  0.750  0.7123 (rung 1)  ",
    ):
        assert words in screen, screen
    assert STOPPING not in screen
    progress.stopping = "SIGINT"
    assert STOPPING in shown(progress)


def test_no_bar_where_nobody_knows_how_much_is_left(progress: Progress) -> None:
    tried = len({result.key for result in progress.results})
    assert _done(replace(progress, limits=Limits(2 * tried, None))) == 0.5
    assert _done(replace(progress, limits=Limits(tried, None))) is None


def test_a_narrow_terminal_is_not_overrun(progress: Progress) -> None:
    lines = shown(progress, width=60).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 60


def test_a_pipe_gets_dated_lines_and_no_control_signs(progress: Progress) -> None:
    pipe = io.StringIO()
    everything = list(progress.results)
    with watching(Console(file=pipe, width=80), quiet=False) as listen:
        progress.results[:] = everything[:1]
        listen(progress)
        progress.results[:] = everything
        listen(progress)
        listen(progress)
        progress.stopping = "SIGTERM"
        listen(progress)
        listen(progress)
    lines = pipe.getvalue().splitlines()
    assert len(lines) == 5
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert "resuming after" in lines[0]
    assert "out of memory" in lines[2]
    assert lines[-1].endswith(f"SIGTERM: {STOPPING}")
    assert "\x1b" not in pipe.getvalue()


@pytest.fixture
def decode_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Console], int]:
    """Decodes images into a new cache each time, and returns how many."""
    files = [tmp_path / f"{number}.png" for number in range(3 * BATCH)]
    for number, path in enumerate(files):
        Image.new("L", (4, 4), number).save(path)
    places = (str(tmp_path / name) for name in "abc")
    # as slow a machine as there can be
    monkeypatch.setattr(screens, "REDRAWN", 0.0)
    monkeypatch.setattr(screens, "WRITTEN", 0.0)

    def again(console: Console, *, quiet: bool = False) -> int:
        monkeypatch.setenv("NASFUSE_CACHE", next(places))
        with decoding(console, quiet=quiet):
            return len(decoded(files, side=4).images)

    return again


def test_a_pipe_gets_dated_lines_while_images_are_decoded(
    decode_again: Callable[..., int],
) -> None:
    pipe = io.StringIO()
    assert decode_again(Console(file=pipe, width=80)) == 3 * BATCH
    words = [line.split(" ", 2)[2] for line in pipe.getvalue().splitlines()]
    assert [text.split(";")[0] for text in words] == [
        f"{doing} images: {done} of {3 * BATCH}"
        for doing in ("reading", "decoding")
        for done in (BATCH, 2 * BATCH)
    ]
    assert all(text.endswith(" left") for text in words)
    assert "\x1b" not in pipe.getvalue()
    silent = io.StringIO()
    decode_again(Console(file=silent, width=80), quiet=True)
    assert silent.getvalue() == ""
    assert not PROGRESS.handlers


def test_a_terminal_shows_decoding_also_inside_of_a_search(
    decode_again: Callable[..., int], progress: Progress
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    with watching(console, quiet=False) as listen:
        decode_again(console)
        during = screen.getvalue()
        listen(progress)
    assert f"decoding images: {2 * BATCH} of {3 * BATCH}" in during
    after = screen.getvalue()[len(during) :]
    assert "decoding images" not in after
    assert "best    0.7123" in after


def test_few_images_are_decoded_without_a_word(
    decode_again: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens, "WRITTEN", 60.0)
    pipe = io.StringIO()
    assert decode_again(Console(file=pipe, width=80)) == 3 * BATCH
    assert pipe.getvalue() == ""


def test_a_search_goes_on_when_its_reader_leaves(progress: Progress) -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    class Passed(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with watching(Passed(file=Left()), quiet=False) as listen:
        listen(progress)
        progress.stopping = "SIGINT"
        listen(progress)
    assert status_line(progress).endswith("1 failed")


def test_networks_that_are_too_slow_have_not_failed(
    progress: Progress, make_result: MakeResult
) -> None:
    slow = {"status": "failed", "accuracy": None, "loss": None, "cause": "9 ms", "too_slow": True}
    progress.results += [make_result(number, **slow) for number in (5, 6)]
    assert status_line(progress).endswith("2 too slow, 1 failed")
    assert "rung 0  2 trained, 2 too slow, 1 failed" in shown(progress)


def test_sentences_are_broken_between_words_on_a_terminal_only() -> None:
    text = "rungs   " + "one two three " * 10
    for terminal, most in ((True, 40), (False, 1000)):
        out = io.StringIO()
        tell(Console(file=out, width=40, force_terminal=terminal), text, indent=8)
        lines = out.getvalue().splitlines()
        assert (len(lines) > 1) == terminal
        assert max(map(len, lines)) <= most
        assert all(line.startswith(" " * 8) for line in lines[1:])


def test_repeats_of_finalists_are_counted_apart(make_result: MakeResult) -> None:
    results = [make_result(0, rung=2), make_result(0, rung=2, repeat=1)]
    assert rung_lines(results) == ["rung 2  1 trained, 1 again with other seeds"]
    assert rung_lines([]) == ["rung 0  nothing trained yet"]


def test_a_front_of_which_not_all_latencies_are_known(make_result: MakeResult) -> None:
    screen = io.StringIO()
    results = [make_result(0), make_result(1, latency=2.5)]
    Console(file=screen, width=100).print(front_table(results))
    header, timed, other = screen.getvalue().splitlines()
    assert "latency" in header
    assert "2.50 ms" in timed
    assert "ms" not in other


@pytest.mark.parametrize(("limit", "promised"), [(100.0, False), (1000.0, True), (None, True)])
def test_no_finals_are_promised_for_which_the_time_is_too_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: float | None, promised: bool
) -> None:
    """Twelve trainings of ten seconds by two workers, where 30 % of the time is for finals."""
    foreseen = Forecast(1, 2, 0.5, 10, 50.0, full=10.0, memory=1, disk=1)
    resources = SimpleNamespace(workers=2)
    plan: Any = SimpleNamespace(limits=Limits(None, limit), resources=resources, folder=tmp_path)
    print_forecast(Console(width=300), plan, foreseen)
    said = capsys.readouterr().out
    assert ("networks and the finals" in said) == promised
    assert ("--time-limit 4m" in said) != promised
