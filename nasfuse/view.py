"""A study's view: MLflow and the report follow a search without being able to hold it up.

A thread of its own writes them, so neither a slow disk nor a server that is down reaches the
search; what could not be shown is said at the end and shown by the next run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from nasfuse.errors import hide_passwords
from nasfuse.explaining import write_study_report
from nasfuse.results import Result
from nasfuse.searching.limits import last_limits
from nasfuse.searching.logbook import log
from nasfuse.searching.study import Settings, Study
from nasfuse.summary import sentences, summarise
from nasfuse.tables import plain
from nasfuse.tracking import Tracker, TrackingError
from nasfuse.trained import RESULT, Trained, read_trained
from nasfuse.trial_runs import training_runs

REST = 40  # times as long as showing the last state took, so that training keeps the processor


def artifact_folder(study: Study, uri: str) -> Path | None:
    """Where a local store keeps files: beside all studies. A server has a place of its own."""
    return None if uri.startswith(("http://", "https://")) else study.folder.parent / "mlartifacts"


class View:
    """Keeps MLflow up to date with the newest results it was given."""

    def __init__(self, study: Study, uri: str) -> None:
        self.study, self.uri = study, uri
        self.problem: str | None = None
        self._tracker: Tracker | None = None
        self._newest: Sequence[Result] = ()
        self._seen = -1
        self._changed, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="view", daemon=True)

    def __enter__(self) -> View:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_thread()

    def _end_thread(self) -> bool:
        """Whether the thread has ended; a store that hangs must not hang the search's end."""
        self._ending.set()
        self._changed.set()
        self._thread.join(timeout=60)
        return not self._thread.is_alive()

    def update(self, results: Sequence[Result]) -> None:
        """Show these results soon, and what is added to them until then; returns at once."""
        if len(results) != self._seen:
            self._seen, self._newest = len(results), results
            self._changed.set()

    def _follow(self) -> None:
        while self._changed.wait() and not self._ending.is_set():
            self._changed.clear()
            began = time.monotonic()
            self._sync(list(self._newest))
            if self._ending.wait(REST * (time.monotonic() - began)):
                return

    def _sync(self, results: list[Result], *, whole: bool = False) -> None:
        """Until the end comes, which a long sync must not hold up; or the `whole` of it."""
        stopped = (lambda: False) if whole else self._ending.is_set
        settings = self.study.settings
        with self._noting():
            if self._tracker is None:
                self._tracker = _tracker(self.study, self.uri)
            top, budget = settings.recipe.top, settings.budget
            self._tracker.sync(results, final_rung=top, budget=budget, stopped=stopped)
            self.problem = None

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """What goes wrong here is said at the end; a search does not end for its view."""
        try:
            yield
        except TrackingError as error:
            self._tracker = None  # what it knows may be less than what the server has
            self.problem = str(error)
        except Exception as error:  # a bug of ours: the thread goes on, for the next may go well
            log.exception("the view cannot be shown")
            where = self.study.folder / "log.txt"
            self.problem = f"{type(error).__name__}: {error} (the traceback is in {where})"

    def finish(self, results: list[Result], *, complete: bool) -> None:
        """Write the report and show the last state; waits until that is done."""
        write_study_report(self.study, results)
        if not self._end_thread():
            self.problem = f"{hide_passwords(self.uri)} does not answer"
            return
        self._sync(results, whole=True)
        if self._tracker is None:
            return
        with self._noting():
            _publish(self._tracker, self.study, results)
            self._tracker.close("FINISHED" if complete else "KILLED")


def show_all(study: Study, uri: str) -> int:
    """Show everything that the study's folder has, whatever was shown before; the count of runs.

    The study's run is FINISHED if the last search came to its own end, by its trials or its time,
    and KILLED otherwise. Of a study of an earlier nasfuse, which did not write that down, the run
    keeps how it ended; one left open is FINISHED if all networks that were asked for are there.

    Raises:
        TrackingError: the store did not take everything; the next call goes on from there.
    """
    settings, results = study.settings, study.results
    write_study_report(study, results)
    tracker = _tracker(study, uri)
    tracker.sync(results, final_rung=settings.recipe.top, budget=settings.budget)
    for path in sorted(study.folder.glob(f"training/*/{RESULT}")):
        tracker.add(training_runs(read_trained(path.parent)))
    _publish(tracker, study, results)
    complete = study.complete
    if complete is None:
        complete = _seems_complete(study, results, tracker.before)
    tracker.close("FINISHED" if complete else "KILLED")
    return len(tracker.known)


def _seems_complete(study: Study, results: list[Result], status: str) -> bool:
    """Of a study that does not say how it ended, by its run's status and its results."""
    wanted = last_limits(study).trials
    enough = wanted is not None and len({result.key for result in results}) >= wanted
    return {"FINISHED": True, "KILLED": False}.get(status, enough)


def _publish(tracker: Tracker, study: Study, results: list[Result]) -> None:
    """Hand the report, which is written already, and the findings to MLflow."""
    settings = study.settings
    summary = summarise(results, budget=settings.budget, validation=settings.validation)
    note = "\n\n".join(map(plain, sentences(summary)))
    tracker.publish(study.folder / "report", note)


def _tracker(study: Study, uri: str) -> Tracker:
    settings = study.settings
    return Tracker.open(
        uri,
        artifacts=artifact_folder(study, uri),
        study=settings.name,
        identity=settings.id,
        settings=_about(settings),
    )


def _about(settings: Settings) -> dict[str, str]:
    """What the parent run says of the study."""
    return {
        "budget_macs": str(settings.budget),
        "space": settings.space_name,
        "data": settings.data,
        "data_fingerprint": settings.fingerprint,
        "sampler": settings.sampler,
        "seed": str(settings.seed),
        "recipe": settings.recipe.model_dump_json(),
        **{f"version_{name}": text for name, text in settings.versions.items()},
    }


def show_trained(study: Study, uri: str, trained: Trained) -> str | None:
    """A run for each seed of a full training among the study's; why that failed, if it did."""
    try:
        _tracker(study, uri).add(training_runs(trained))
    except TrackingError as error:
        return str(error)
    return None
