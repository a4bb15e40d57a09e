"""The thread that shows a search in MLflow: behind it while it runs, and never in its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nasfuse import view
from nasfuse.results import Result
from nasfuse.searching.logbook import logbook
from nasfuse.searching.study import Settings, Study
from nasfuse.tracking import local_uri


class Slow:
    """A store that takes each result in, one after the other, until it is stopped."""

    def __init__(self) -> None:
        self.begun, self.shown = threading.Event(), list[list[int]]()

    def sync(self, results: Sequence[Result], stopped: Callable[[], bool], **_: Any) -> None:
        self.begun.set()
        while stopped is not None and not stopped() and not self.shown:
            pass  # more to write than there ever is time for
        self.shown.append([result.number for result in results])

    def close(self, status: str) -> None:
        self.status = status


def test_what_goes_wrong_in_the_thread_is_said_and_the_thread_goes_on(
    tmp_path: Path,
    make_result: Callable[..., Result],
    make_settings: Callable[..., Settings],
) -> None:
    study = Study.create(tmp_path / "a", make_settings())
    odd = make_result(0, rung=2).model_copy(update={"finished": "yesterday"})
    uri = local_uri(tmp_path)
    with logbook(study.folder / "log.txt"), view.View(study, uri) as shown:
        shown.update([odd])
        deadline = time.monotonic() + 60
        while shown.problem is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert shown._thread.is_alive()
        assert shown.problem.startswith("ValueError: Invalid isoformat string: 'yesterday'")
        assert "Traceback" in (study.folder / "log.txt").read_text()
        shown.finish([odd], complete=True)
        assert shown.problem is not None
        shown.finish([make_result(0, rung=2)], complete=True)
        assert shown.problem is None


def test_a_long_sync_ends_with_the_search_and_the_rest_is_shown_then(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_result: Callable[..., Result],
    make_settings: Callable[..., Settings],
) -> None:
    store = Slow()
    monkeypatch.setattr(view, "_tracker", lambda *_: store)
    for name in ("write_study_report", "_publish"):
        monkeypatch.setattr(view, name, lambda *_: SimpleNamespace())
    study = Study.create(tmp_path / "a", make_settings())
    results = [make_result(0)]
    with view.View(study, "sqlite:///nowhere") as shown:
        shown.update(results)
        assert store.begun.wait(60)
        results += [make_result(1), make_result(2)]
        shown.update(results)
        shown.finish(results, complete=True)
    assert store.shown == [[0], [0, 1, 2]]
    assert store.status == "FINISHED"
    assert shown.problem is None
