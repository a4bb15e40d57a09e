"""The README's first command on a fresh environment, timed: what a newcomer gets, and when.

    python scripts/bench_main_job.py [--budget 400MFLOPs] [--json]

Builds the wheel, installs it into a new virtual environment outside the checkout, runs the search
there, exports the best network, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parent.parent


def timed(*command: str | Path, cwd: Path) -> tuple[float, str]:
    """Seconds that a command took, and what it wrote to stdout."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    began = time.monotonic()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return time.monotonic() - began, done.stdout.decode()


def measure(budget: str, folder: Path) -> dict[str, Any]:
    """Everything from a clone to the exported module, in an otherwise empty folder."""
    venv.create(folder / "venv", with_pip=True)
    python, nasfuse = folder / "venv" / "bin" / "python", folder / "venv" / "bin" / "nasfuse"
    pip = (python, "-m", "pip", "-q", "--disable-pip-version-check")
    timed(*pip, "wheel", "--no-deps", "-w", folder / "wheel", CHECKOUT, cwd=folder)
    wheel = next((folder / "wheel").glob("nasfuse-*.whl"))
    install, _ = timed(*pip, "install", wheel, cwd=folder)
    search, text = timed(nasfuse, "search", "--budget", budget, "--json", cwd=folder)
    found = json.loads(text)
    export, text = timed(nasfuse, "export", "best", "--out", "net", "--json", cwd=folder)
    results = [
        json.loads(line)
        for line in (folder / found["folder"] / "results.jsonl").read_text().splitlines()
    ]
    front, budget_macs = found["front"], found["budget_macs"]
    top = "from nasfuse.recipe import Recipe; print(Recipe().top)"  # of the nasfuse that ran
    return {
        "wheel_bytes": wheel.stat().st_size,
        "install_seconds": round(install, 1),
        "search_seconds": round(search, 1),
        "export_seconds": round(export, 1),
        **counts(results, top=int(timed(python, "-c", top, cwd=folder)[1])),
        "front": [{k: row[k] for k in ("accuracy", "macs", "params")} for row in front],
        "largest_budget_share_of_any_network_tried": largest(results) / budget_macs,
        "largest_budget_share_of_the_front": largest(front) / budget_macs,
        "export_difference": json.loads(text)["difference"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
    }


def counts(results: Sequence[Row], *, top: int) -> dict[str, int]:
    """Of what a search recorded. The rungs below `top` are short trainings and pauses."""
    complete = [row for row in results if row["status"] == "complete"]
    return {
        "networks_tried": len({row["key"] for row in results}),
        "full_trainings": sum((row["rung"], row["repeat"]) == (top, 0) for row in complete),
        "failed": len(results) - len(complete),
    }


def largest(rows: Sequence[Row]) -> int:
    """MACs of the dearest network, by whichever of the two counters says more."""
    return max(int(row[count]) for row in rows for count in ("macs", "thop"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--budget", default="400MFLOPs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nasfuse-bench-") as folder:
        figures = measure(options.budget, Path(folder))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        if name != "front":
            print(f"{name.replace('_', ' '):<41} {value}")
    for row in figures["front"]:
        print(f"front: accuracy {row['accuracy']:.4f}  {row['macs'] / 1e6:8.2f}M MACs")


if __name__ == "__main__":
    main()
