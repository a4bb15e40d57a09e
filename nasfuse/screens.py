"""What is said before and after a search: the plan, the front, the next commands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from nasfuse.commands import next_commands, sync_command
from nasfuse.costs import show_macs
from nasfuse.errors import visible
from nasfuse.files import free_space
from nasfuse.finals import FINALISTS, REPEATS, verdict
from nasfuse.plan import Layer
from nasfuse.results import Result
from nasfuse.searching.schedule import FINALS_SHARE
from nasfuse.searching.sharing import mps_text
from nasfuse.searching.study import Study
from nasfuse.summary import conclusion, fusion_stages, summarise
from nasfuse.terminal import (
    clock,
    front_table,
    plan_lines,
    rung_text,
    status_line,
)
from nasfuse.terminal import say as say
from nasfuse.terminal import tell as tell

if TYPE_CHECKING:  # `nasfuse cost` and `front` need none of what a search imports
    from nasfuse.api import Outcome
    from nasfuse.architecture import Architecture
    from nasfuse.planning import Plan
    from nasfuse.searching.forecast import Forecast
    from nasfuse.tracking import Addresses


class _Console(Console):
    """One that shows text from anywhere, and whose reader may leave before the end.

    Of a reader that has left rich would end the program with a failure. Whatever is printed is
    rendered: here the text of a study, which may be anybody's, loses what a terminal acts upon.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment._replace(text=text)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(as_json: bool) -> Console:
    """Where people read: stdout, or stderr when stdout carries JSON."""
    return _Console(stderr=as_json, highlight=False)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def print_layers(console: Console, layers: Sequence[Layer]) -> None:
    """Where a network's cost lies: a line a layer, with its share of the MACs."""
    total = max(1, sum(layer.cost.macs for layer in layers))
    wide = max(len(layer.name) for layer in layers)
    for layer in layers:
        macs, params = layer.cost.macs, layer.cost.params
        say(
            console,
            f"{layer.name:<{wide}} {layer.shape!s:>13} {show_macs(macs):>8} MACs "
            f"{macs / total:>6.1%} {params:>11,} parameters",
        )


def print_plan(console: Console, plan: Plan) -> None:
    settings, limits = plan.settings, plan.limits
    ends = [f"{limits.trials} network{'s' * (limits.trials > 1)}"] if limits.trials else []
    ends += [clock(limits.seconds)] if limits.seconds else []
    workers = plan.resources.workers
    hands = f"{workers} worker{'s' * (workers > 1)}" if workers else "the cluster's workers"
    words = f"{' or '.join(ends)}, {hands}"
    size, train = settings.search_space.size, len(plan.dataset.train)
    lines = plan_lines(settings, words, size=size, train=train)
    if plan.sharing is not None:
        lines.append(f"gpus    {plan.sharing.text}")
    elif plan.resources.gpus_per_trial:
        lines.append(f"gpus    {plan.resources.gpus_per_trial:g} for each trial; {mps_text()}")
    for line in lines:
        tell(console, line, indent=8)


def print_forecast(console: Console, plan: Plan, foreseen: Forecast) -> None:
    """What the search will take; measured just now, so it holds for a machine as busy as now."""
    least, most = show_macs(foreseen.least), show_macs(foreseen.most)
    short = _too_short(plan, foreseen)
    finals = "" if short else " and the finals"
    lines = [
        f"costs   the cheapest network found needs {least} MACs, the dearest {most}; "
        f"{foreseen.fitting:.0%} of the space fits the budget",
        f"time    about {clock(foreseen.seconds)} for {foreseen.trials} networks{finals}; "
        f"{clock(foreseen.full)} for a full training at the whole budget (measured)",
        *short,
        f"memory  about {foreseen.memory / 2**30:.1f} GB a worker",
        f"disk    about {foreseen.disk / 1e6:.0f} MB in {plan.folder}, where "
        f"{free_space(plan.folder) / 1e6:,.0f} MB are free",
    ]
    for line in lines:
        tell(console, line, indent=8)


def _too_short(plan: Plan, foreseen: Forecast) -> list[str]:
    """That the time is too short for finals of networks of the whole budget, and what would do."""
    limit, workers = plan.limits.seconds, plan.resources.workers or 1
    finals = (FINALISTS + 1) * REPEATS * foreseen.full / workers
    if limit is None or finals <= FINALS_SHARE * limit:
        return []
    minutes = math.ceil(finals / FINALS_SHARE / 60)
    enough = f"{minutes}m" if minutes < 60 else f"{math.ceil(minutes / 60)}h"
    return [
        f"        finals of networks of the whole budget take {clock(finals)}, more than the "
        f"{FINALS_SHARE:.0%} of the time that is kept for them: smaller ones get them, or none. "
        f"Enough would be --time-limit {enough}"
    ]


def print_trial(console: Console, study: Study, result: Result) -> None:
    """One network: what it reached and costs, and what it is made of, stage by stage."""
    settings = study.settings
    rung = settings.recipe.rungs[result.rung]
    lines = [
        f"trial     {result.number} of {settings.name}, key {result.key}, from {result.origin}",
        f"accuracy  {result.point.accuracy:.4f} on {settings.validation:,} validation images, "
        f"after {rung_text(rung)} on {rung.share:.0%} of the training images",
        f"costs     {result.macs:,} MACs ({result.macs / settings.budget:.1%} of the budget; "
        f"{result.thop:,} by thop), {result.params:,} parameters",
    ]
    if result.retry:
        lines.append(f"memory    half the batch, {result.batch}, after {result.retry}")
    if result.latency is not None:
        lines.append(f"latency   {result.latency:.2f} ms for one image")
    lines += _finals_lines(study, result)
    for line in [*lines, *_stage_lines(result.architecture)]:
        tell(console, line, indent=10)
    say(console, f"files     {study.trial(result.key)}")


def _finals_lines(study: Study, result: Result) -> list[str]:
    """What its trainings in the finals reached, which had no part in choosing it."""
    settings = study.settings
    found = verdict(study.results, settings.recipe.top, images=settings.validation)
    return [
        f"finals    {one.mean:.4f}, the mean of {len(one.accuracies)} further trainings"
        for one in (found.finalists if found else ())
        if one.result.key == result.key
    ]


def _stage_lines(architecture: Architecture) -> list[str]:
    stem, neck, fusions = architecture.stem, architecture.neck, fusion_stages(architecture)
    lines = [
        f"input     {architecture.channels}x{architecture.resolution}x{architecture.resolution}",
        f"stem      width {stem.width}, kernel {stem.kernel}, stride {stem.stride}",
    ]
    for number, (stage, used) in enumerate(zip(architecture.stages, fusions, strict=True)):
        sizes = [f"width {stage.width}"] if stage.width else []
        sizes += [f"growth {stage.growth}"] if stage.growth else []
        lines.append(
            f"stage {number}   {stage.block.kind} x{stage.depth}, {', '.join(sizes)}, "
            f"stride {stage.stride}: {used}"
        )
    return [*lines, *([f"neck      {neck.kind}"] if neck else [])]


def print_addresses(study: str, addresses: Addresses, *, quiet: bool, as_json: bool) -> None:
    """Where a browser finds the study's chart, its note with the table, and all studies."""
    if as_json:
        print_json({"schema_version": 1, "study": study, **addresses._asdict()})
    elif quiet:
        print(addresses.front)
    else:
        print(f"the front of {visible(study)}, as a chart of its trials:\n  {addresses.front}")
        print(f"the front as a table:\n  {addresses.note}")
        print(f"the interactive page:\n  {addresses.page}")
        print(f"all studies:\n  {addresses.server}")
    sys.stdout.flush()


def front_document(study: Study, results: list[Result]) -> dict[str, Any]:
    rows = [r.model_dump(mode="json", exclude_none=True) for r in results]
    settings = study.settings
    return {
        "schema_version": 1,
        "study": settings.name,
        "budget_macs": settings.budget,
        "folder": str(study.folder),
        "front": rows,
    }


def warn_of_short(console: Console, study: Study, front: list[Result]) -> None:
    if not front:
        say(console, "nothing has been trained yet")
    elif front[0].rung < study.settings.recipe.top:
        say(console, "nothing is fully trained yet: this is the front of the short trainings")


def print_unseen(console: Console, study: Study, why: str) -> None:
    """That MLflow's view is not complete, and what to type to make it so."""
    say(console, f"MLflow does not show all of this: {why}")
    say(console, f"sync    {sync_command(study)}")


def print_outcome(console: Console, outcome: Outcome, *, as_json: bool) -> None:
    """The front, what came of the search and what to type next."""
    progress, study = outcome.progress, outcome.study
    tell(console, f"{status_line(progress)}; {clock(progress.seconds)} in all")
    warn_of_short(console, study, outcome.front)
    if outcome.front:
        say(console, f"budget  {show_macs(study.settings.budget)} MACs")
        console.print(front_table(outcome.front))
    settings = study.settings
    found = summarise(progress.results, budget=settings.budget, validation=settings.validation)
    for line in [*conclusion(found), found.spending]:
        tell(console, line)
    for notice in outcome.progress.notices:
        say(console, f"notice: {notice}")
    if outcome.view_problem:
        print_unseen(console, study, outcome.view_problem)
    if as_json:
        print_json(front_document(study, outcome.front))
    commands = next_commands(study)
    if progress.stopping:
        say(console, f"stopped; go on with:  {commands['resume']}")
    elif outcome.front:
        say(console, f"report  {study.folder / 'report' / 'front.html'}")
        say(console, f"look    {commands['look']}")
        say(console, f"explain {commands['explain']}")
        say(console, f"train   {commands['train']}")
        say(console, f"export  {commands['export']}")
