"""How long a study of many made-up trials takes to reach MLflow and a browser.

    python scripts/bench_view.py [--trials 1000] [--json]

Times: one sync of everything, a sync that finds nothing new, the report. Where chromium is
installed: until MLflow's preset view has drawn two points a trial (one chart of full trainings, one
of the first rung), and until our page has, both without any other network than this machine's.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nasfuse.errors import BudgetError
from nasfuse.network import cost
from nasfuse.report import write_report
from nasfuse.results import Result
from nasfuse.scaling import fit_to_budget
from nasfuse.serving import serve
from nasfuse.space import load_space
from nasfuse.summary import summarise
from nasfuse.tracking import Tracker, local_uri, study_addresses

BUDGET = 50_000_000
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --window-size=1600,1000 "
    "--disable-background-networking --disable-component-update"
)
POINT = re.compile(r'<path class="point[ "]')


def made_up(trials: int) -> list[Result]:
    """Two results a network of the default space, at costs up to the budget; made-up accuracies."""
    draw, space = random.Random(0), load_space("default")
    results: list[Result] = []
    for seed in range(10 * trials):
        if len(results) == 2 * trials:
            break
        candidate, share = space.sample(seed), draw.choice((1.0, 0.5, 0.25, 0.1))
        try:
            network = fit_to_budget(candidate.architecture, candidate.scaling, int(BUDGET * share))
        except BudgetError:
            continue
        price, number = cost(network), len(results) // 2
        accuracy = 0.5 + 0.04 * math.log(price.macs / 1e5) + draw.gauss(0, 0.01)
        results += [
            Result(
                key=network.key,
                number=number,
                rung=rung,
                origin="guided",
                status="complete",
                architecture=network,
                macs=price.macs,
                params=price.params,
                thop=price.thop,
                accuracy=accuracy - 0.05 * (2 - rung),
                loss=1 - accuracy,
                seconds=5.0,
                seed=0,
                data="0" * 12,
                versions={"nasfuse": "0"},
                finished=f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z",
            )
            for rung in (0, 2)
        ]
    return results


def drawn(address: str, wanted: int, folder: Path) -> tuple[float, int]:
    """Seconds until a browser has drawn so many points, and how many it has drawn in the end.

    The page's own clock runs ahead of the wall's while it waits, so longer and longer waits are
    tried, and the first that is long enough is the one that counts.
    """
    for virtual in (10, 30, 60, 120, 240, 480):
        began = time.monotonic()
        wait = [f"--virtual-time-budget={1000 * virtual}", f"--user-data-dir={folder / 'profile'}"]
        command = [str(BROWSER), *FLAGS.split(), *wait, "--dump-dom", address]
        page = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        points = len(POINT.findall(page))
        if points >= wanted:
            break
    return round(time.monotonic() - began, 1), points


def measure(results: list[Result], folder: Path) -> dict[str, float]:
    uri, artifacts = local_uri(folder), folder / "mlartifacts"
    trials = len({result.key for result in results})
    figures: dict[str, float] = {"trials": trials}

    def timed(name: str, began: float) -> None:
        figures[name] = round(time.monotonic() - began, 1)

    began = time.monotonic()
    tracker = Tracker.open(uri, artifacts=artifacts, study="made up", identity="1", settings={})
    timed("open_store_s", began)
    began = time.monotonic()
    tracker.sync(results, 2, BUDGET)
    timed("first_sync_s", began)
    began = time.monotonic()
    tracker.sync(results, 2, BUDGET)
    timed("second_sync_s", began)
    began = time.monotonic()
    write_report(
        folder / "report",
        results,
        summarise(results, budget=BUDGET, validation=2000),
        title="made up",
    )
    timed("report_s", began)
    figures["page_mb"] = round((folder / "report" / "front.html").stat().st_size / 1e6, 2)
    tracker.publish(folder / "report", "made up")
    tracker.close("FINISHED")
    if BROWSER:
        page = (folder / "report" / "front.html").as_uri()
        figures["page_drawn_s"], figures["page_points"] = drawn(page, trials, folder)
        with serve(uri, artifacts) as server:
            front = study_addresses(server.address, uri, "made up", "1").front
            figures["mlflow_drawn_s"], figures["mlflow_points"] = drawn(front, 2 * trials, folder)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(made_up(arguments.trials), Path(folder))
    if arguments.json:
        machine = {"machine": platform.platform(), "python": sys.version.split()[0]}
        print(json.dumps({"schema_version": 1, **machine, **figures}, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:<16} {value:>10}")


if __name__ == "__main__":
    main()
