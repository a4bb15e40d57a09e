"""Kill searches at random moments, resume them, and count what was lost.

    python scripts/bench_kills.py [--kills 100] [--signal KILL|TERM|INT|INT2|WORKER]
        [--a-search 10] [--seed 0] [--trials 10] [--add FILE] [--json]

Small real searches (two workers, a thousand images of digits) are killed after times drawn at
random: while they import, while Ray starts, in training, between two trials. Then they are resumed,
and killed again; after `--a-search` kills a search may end, and another one begins. After every
kill and at the end it is checked that

    lost        no line of results.jsonl is gone or altered, and all that was said to have ended
                is there
    repeated    no evaluation is there twice, and no worker's result was written again
    unreadable  a checkpoint that a worker would go on from is whole
    set back    the first checkpoint of a trial after a kill has more epochs than the one at the
                kill, so that a kill costs a trial at most the epoch that was running
    late        a resumed search has trained an epoch after 20 s
    orphans     no process of the search is left after 30 s
    unfinished  at the end every network has its result, in Optuna's database and in MLflow too
    exit code   SIGTERM ends with 143 and Ctrl-C with 130, and both with the line to go on with,
                wherever the search holds its study

INT is Ctrl-C pressed in a pseudo-terminal, INT2 twice within two seconds. With WORKER the search
itself goes on to its end, and processes that train for it are killed at random moments. The seed
draws all pauses and which worker is killed; what a search is doing by then is up to the machine.

Shown are the seconds until all processes were gone, and from a resumption to the first new epoch.
`--add` keeps the figures in a file and shows those of all runs that it holds. Ctrl-C ends the
benchmark early, with what was found until then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from killed_search import AGAIN, CODES, PATIENCE, Found, Search

LONGEST = 10.0  # seconds from the first new epoch of a run, or from its start, to the kill
EARLY = 0.25  # of the kills are counted from the start
PAUSES = (1.0, 10.0)  # seconds between two workers that are killed
KINDS = (
    "lost",
    "repeated",
    "unreadable",
    "set back",
    "late",
    "orphans",
    "unfinished",
    "exit code",
)


def kill_searches(options: argparse.Namespace) -> Found:
    generator, found = random.Random(options.seed), Found()
    with tempfile.TemporaryDirectory() as folder:
        while found.kills < options.kills:
            found.searches += 1
            search = Search(Path(folder) / str(found.searches), options.trials, found)
            most = min(options.kills - found.kills, options.a_search)
            try:
                if options.signal == "WORKER":
                    search.kill_workers(generator, PAUSES, most)
                else:
                    kill_and_resume(search, options.signal, generator, most)
            except KeyboardInterrupt:
                search.end()
                return found
            search.check_all()
    return found


def kill_and_resume(search: Search, name: str, generator: random.Random, most: int) -> None:
    """To its end, which comes after so many kills, or before."""
    for _ in range(most):
        early = generator.random() < EARLY
        delay, again = generator.uniform(0, LONGEST), generator.uniform(0, AGAIN)
        if not search.run(name, delay, again, early=early):
            return
        search.found.tell()
    search.run(name, PATIENCE, early=True)


def added(found: Found, name: str, path: Path) -> Found:
    """The figures with those of the file for the same signal, which then has them all."""
    lines = path.read_text().splitlines() if path.exists() else []
    figures = {**vars(found), "wrong": dict(found.wrong)}
    line = json.dumps({"signal": name, "load": os.getloadavg()[0], **figures})
    with path.open("a") as file:
        file.write(line + "\n")
    total = Found()
    for kept in map(json.loads, [*lines, line]):
        if kept["signal"] == name:
            total.wrong += Counter(kept["wrong"])
            total.kills += kept["kills"]
            total.searches += kept["searches"]
            for list_name in ("notes", "gone", "first_epoch"):
                getattr(total, list_name).extend(kept[list_name])
    return total


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 1) if seconds else 0.0,
        "largest": round(max(seconds, default=0.0), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=sorted(CODES), default="KILL")
    parser.add_argument("--a-search", type=int, default=10)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = kill_searches(options)
    if options.add:
        found = added(found, options.signal, options.add)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "kills": found.kills,
        "searches": found.searches,
        "wrong": {kind: found.wrong[kind] for kind in KINDS},
        "notes": found.notes,
        "until all processes were gone (s)": spread(found.gone),
        "resumption to the first new epoch (s)": spread(found.first_epoch),
    }
    if options.json:
        print(json.dumps(report))
    else:
        print_report(report, options.signal)
    sys.exit(bool(found.wrong))


def print_report(report: dict[str, Any], name: str) -> None:
    print(f"{report['machine']}: {name}")
    figures = {n: report[n] for n in ("kills", "searches")} | report["wrong"]
    for kind, count in figures.items():
        print(f"  {kind:<40} {count}")
    for kind in ("until all processes were gone (s)", "resumption to the first new epoch (s)"):
        print(f"  {kind:<40} {report[kind]['median']} (median), {report[kind]['largest']} at most")
    print("\n".join(report["notes"]))


if __name__ == "__main__":
    main()
