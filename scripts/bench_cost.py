"""What networks cost by formula, as torch counts and as thop counts, and how fast fitting is.

    python scripts/bench_cost.py [--samples 1000] [--json]

Prints three tables: published networks by the three counters; the time of one price; and how much
of a budget fitted candidates use, which none may pass by either counter. They are fitted by the
formulas for both, so torch and thop themselves count a few of each row as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nasfuse.architecture import Architecture
from nasfuse.errors import BudgetError
from nasfuse.network import cost, thop_macs, torch_cost
from nasfuse.references import load_architecture, reference_names
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space, space_names

SMALL = (1_000_000, 10_000_000, 50_000_000, 400_000_000)
FEW = 3  # networks of a row that torch and thop count
FITS = {name: SMALL for name in space_names() if name != "mobile"} | {
    "mobile": (400_000_000, 600_000_000)
}


def milliseconds(work: Callable[[Architecture], object], network: Architecture) -> float:
    began = time.perf_counter()
    work(network)
    return (time.perf_counter() - began) * 1e3


def counters() -> Iterator[dict[str, Any]]:
    """Published networks: MACs by formula, by FlopCounterMode on the meta device, by thop."""
    for name in reference_names():
        network = load_architecture(name)
        price, (macs, params) = cost(network), torch_cost(network)
        thop = thop_macs(network)
        yield {
            "network": name,
            "params": price.params,
            "formula": price.macs,
            "torch": macs,
            "thop": thop,
            "torch/formula": macs / price.macs,
            "thop/formula": round(thop / price.macs, 4),
            "params agree": params == price.params,
        }


def prices(samples: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of one price of networks that were never priced before."""
    for name in space_names():
        space = load_space(name)
        networks = [space.sample(seed).architecture for seed in range(samples)]
        times = sorted(milliseconds(cost, network) for network in networks)
        few = networks[:10]
        counted = statistics.median(milliseconds(torch_cost, network) for network in few)
        thop = statistics.median(milliseconds(thop_macs, network) for network in few)
        median = statistics.median(times)
        yield {
            "space": name,
            "formula ms": round(median, 3),
            "95th ms": round(times[int(0.95 * len(times))], 3),
            "torch/formula time": round(counted / median),
            "thop/formula time": round(thop / median),
        }


def fits(samples: int) -> Iterator[dict[str, Any]]:
    """How much of a budget candidates use when they are built to fit it."""
    for name, budgets in FITS.items():
        space = load_space(name)
        candidates = [space.sample(seed) for seed in range(samples)]
        for budget in budgets:
            began, networks, refused = time.perf_counter(), [], 0
            for candidate in candidates:
                try:
                    fitted = fit_to_budget(candidate.architecture, candidate.scaling, budget)
                except BudgetError:
                    refused += 1
                    continue
                networks.append(fitted)
            seconds = time.perf_counter() - began
            used = sorted(cost(network).larger / budget for network in networks)
            few = networks[:FEW]
            yield {
                "space": name,
                "budget": budget,
                "fitted": len(used),
                "too large at their smallest": refused,
                "over": sum(share > 1 for share in used),
                "counted by torch and thop": len(few),
                "largest difference": max(map(difference, few), default=None),
                "median use": round(statistics.median(used), 4) if used else None,
                "5th percentile": round(used[len(used) // 20], 4) if used else None,
                "fitted a second": round(samples / seconds),
            }


def difference(network: Architecture) -> int:
    """MACs by which the formulas and the counters that they stand for disagree."""
    price = cost(network)
    return max(abs(torch_cost(network)[0] - price.macs), abs(thop_macs(network) - price.thop))


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    cells = [[*rows[0]], *([f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()]
                           for row in rows)]  # fmt: skip
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tables = {
        "prices": list(prices(options.samples)),
        "fits": list(fits(options.samples)),
        "counters": list(counters()),
    }
    machine = f"{platform.machine()}, one core, Python {sys.version.split()[0]}"
    if options.json:
        print(json.dumps({"machine": machine, "samples": options.samples, **tables}, indent=2))
        return
    print(f"{options.samples} networks a space, {machine}")
    for title, rows in tables.items():
        show(title, rows)


if __name__ == "__main__":
    main()
