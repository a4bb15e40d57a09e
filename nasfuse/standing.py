"""Where a study stands, from its folder alone: for those who did not start the search."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nasfuse.choosing import best_of
from nasfuse.costs import show_macs
from nasfuse.results import Result, result_front
from nasfuse.searching.limits import last_limits
from nasfuse.searching.study import Study
from nasfuse.summary import fusion_text
from nasfuse.terminal import clock, rung_lines


@dataclass(frozen=True)
class Standing:
    """A study's results, and the process that searches in it, if one does."""

    study: Study
    results: list[Result]
    process: int | None

    @property
    def front(self) -> list[Result]:
        return result_front(self.results)

    @property
    def best(self) -> Result | None:
        return best_of(self.study, self.results)

    @property
    def counts(self) -> dict[int, Counter[str]]:
        """Evaluations by rung: complete, failed and, for finalists, again."""
        found: dict[int, Counter[str]] = {}
        for one in self.results:
            again = one.status == "complete" and one.repeat > 0
            found.setdefault(one.rung, Counter())["again" if again else one.status] += 1
        return dict(sorted(found.items()))

    @property
    def networks(self) -> int:
        return len({one.key for one in self.results})

    @property
    def wanted(self) -> int | None:
        """How many networks the last run was to have tried, where it was asked so."""
        return last_limits(self.study).trials

    @property
    def seconds(self) -> float:
        """Of training, by all workers together."""
        return sum(one.seconds for one in self.results)

    @property
    def silence(self) -> float | None:
        """Seconds since the last result, None before the first."""
        ends = [datetime.fromisoformat(one.finished).timestamp() for one in self.results]
        return max(0.0, time.time() - max(ends)) if ends else None

    @property
    def failure(self) -> str | None:
        """Why the newest of the failed evaluations failed."""
        causes = [one.cause for one in self.results if one.broke and one.cause]
        return " ".join(causes[-1].split())[:200] if causes else None


def stand(study: Study) -> Standing:
    """How a study stands now; may be asked while a search runs in it."""
    return Standing(study, study.results, study.searcher)


def stand_document(found: Standing) -> dict[str, Any]:
    """The same for programs."""
    settings, front = found.study.settings, found.front
    best = found.best
    return {
        "schema_version": 1,
        "study": settings.name,
        "folder": str(found.study.folder),
        "running": found.process is not None,
        "process": found.process,
        "budget_macs": settings.budget,
        "networks": found.networks,
        "networks_wanted": found.wanted,
        "rungs": {str(rung): dict(counts) for rung, counts in found.counts.items()},
        "front": len(front),
        "best_accuracy": best.accuracy if best else None,
        "best_trial": best.number if best else None,
        "training_seconds": round(found.seconds, 1),
        "seconds_since_result": found.silence,
        "last_failure": found.failure,
    }


def stand_lines(found: Standing) -> list[str]:
    """The same for people."""
    settings, silence = found.study.settings, found.silence
    running = f"running, process {found.process}" if found.process else "no search runs in it"
    wanted = f" of {found.wanted}" if found.wanted else ""
    lines = [
        f"study    {settings.name}: {running}",
        f"asked    {show_macs(settings.budget)} MACs, space {settings.space_name}, "
        f"data {settings.data}, sampler {settings.sampler}",
        f"tried    {found.networks}{wanted} networks, {clock(found.seconds)} of training",
    ]
    lines += [line.replace("  ", "   ", 1) for line in rung_lines(found.results)]
    front, best = found.front, found.best
    if best:
        most = front[-1]
        top = "" if best.rung == settings.recipe.top else f", on rung {best.rung}"
        lines.append(
            f"best     {best.point.accuracy:.4f}{top}: trial {best.number}, "
            f"{show_macs(best.macs)} MACs, {fusion_text(best.architecture)}"
        )
        if most.key != best.key:
            lines.append(
                f"         {most.point.accuracy:.4f}: trial {most.number}, the most accurate in a "
                "single training"
            )
        lines.append(f"front    {len(front)} network{'s' * (len(front) > 1)}")
    if silence is not None:
        lines.append(f"last     result {clock(silence)} ago")
    if found.failure:
        lines.append(f"failure  {found.failure}")
    return lines
