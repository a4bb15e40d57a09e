"""What is said before, during and after a full training."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nasfuse.costs import show_macs
from nasfuse.full_training import FullTraining, Listener, Moment
from nasfuse.network import cost
from nasfuse.screens import say
from nasfuse.terminal import clock

if TYPE_CHECKING:
    from nasfuse.api import Finished

Announce = Callable[[FullTraining], None]


@contextmanager
def following(console: Console, *, quiet: bool) -> Iterator[tuple[Announce, Listener]]:
    """Two listeners: of the plan, and of every epoch; one line of progress on a terminal."""
    if quiet:
        yield lambda planned: None, lambda moment: None
    elif console.is_terminal:
        with Live(Text("starting"), console=console, refresh_per_second=2, transient=True) as live:

            def show(moment: Moment) -> None:
                _note(console, moment)
                live.update(Text(_line(moment)))

            yield lambda p: _announce(console, p), show
    else:

        def write(moment: Moment) -> None:
            _note(console, moment)
            _dated(console, _line(moment))

        yield lambda p: _announce(console, p), write


def _note(console: Console, moment: Moment) -> None:
    if moment.notice:
        say(console, f"notice: {moment.notice}")


def _dated(console: Console, text: str) -> None:
    say(console, f"{datetime.now().strftime('%H:%M:%S')} {text}")


def _line(moment: Moment) -> str:
    settings, last = moment.settings, moment.last
    accuracy = "" if last.accuracy is None else f", validation accuracy {last.accuracy:.4f}"
    return (
        f"seed {moment.run + 1} of {settings.seeds}, epoch {moment.epoch} of {settings.epochs}: "
        f"loss {last.loss:.3f}{accuracy}; {clock(moment.left)} left"
    )


def _announce(console: Console, planned: FullTraining) -> None:
    settings = planned.settings
    price, trial = cost(settings.architecture), settings.number
    origin = f", trial {trial} of {settings.study}" if trial is not None else ""
    both = settings.train + settings.validation
    images = (
        f"{both:,} images, validation among them"
        if settings.all_data
        else f"{settings.train:,} training images, {settings.validation:,} for validation"
    )
    time = "" if planned.expected is None else f", about {clock(planned.expected)}"
    for line in (
        f"network  {settings.architecture.key}{origin}: {show_macs(price.macs)} MACs, "
        f"{price.params:,} parameters",
        f"data     {settings.data}: {images}",
        f"plan     {settings.epochs} epochs, {settings.seeds} seeds, on {planned.device.type}"
        f"{time}",
        f"folder   {planned.folder}",
    ):
        say(console, line)


def print_compared(console: Console, done: Sequence[Finished]) -> None:
    """Several networks beside each other, by the images that may choose one of them."""
    if len(done) < 2:
        return
    say(console, "compared by validation accuracy; the test images are not for choosing")
    for one in sorted(done, key=_validation, reverse=True):
        trained = one.trained
        known = "not reported" if trained.validation is None else trained.validation.text
        tested = f", test {trained.test.text}" if trained.test else ""
        text = f"{trained.key}  {show_macs(trained.macs)} MACs, validation {known}{tested}"
        say(console, f"  {text}")


def _validation(finished: Finished) -> float:
    scores = finished.trained.validation
    return scores.mean if scores else 0.0


def print_trained(console: Console, finished: Finished) -> None:
    """What the networks know, and what to type next."""
    trained = finished.trained
    for name, scores in (("validation", trained.validation), ("test", trained.test)):
        if scores is not None:
            say(console, f"{name:<10}  accuracy {scores.text} on {scores.images:,} images")
    if trained.validation is None:
        say(console, "validation  not reported: the networks were trained on these images")
    if trained.test is None:
        say(console, "test        the data have no test images: nothing is reported for them")
    scores = trained.test or trained.validation
    if scores is not None:
        worst = sorted(zip(scores.per_class, trained.settings.classes, strict=True))[:3]
        text = ", ".join(f"{name!r} {share:.1%}" for share, name in worst)
        say(console, f"weakest     {text}")
    if finished.view_problem:
        say(console, f"MLflow does not show this: {finished.view_problem}")
    say(console, f"result      {finished.folder / 'trained.json'}")
    say(console, f"export      nasfuse export {shlex.quote(str(finished.folder))} --out net/")
