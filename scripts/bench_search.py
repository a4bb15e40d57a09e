"""How fast samplers find good networks, on tables of trained ones and on made-up problems.

    python scripts/bench_search.py --table nasbench201_cifar10.parquet \\
        --accuracy c10_val_e200_seed0,c10_val_e200_seed1,c10_val_e200_seed2 \\
        --report c10_val_e200 --cost c10_mflops --encoding ops --budget 20,45,90 --seeds 100
    python scripts/bench_search.py --synthetic --seeds 5   # made-up tables, eight families
    python scripts/bench_search.py --space default         # made-up accuracies, fronts
    python scripts/bench_search.py --ask-times

Each character of the encoding is one categorical parameter. Networks over the budget cost nothing,
for their price is known. An evaluation returns one of the accuracies, drawn; the best observed is
the incumbent; its regret is in the report column, which no search sees. Baselines: `rs_feas` draws
without replacement, `reg_evo` is regularised evolution (20 individuals, tournament 5, one
mutation), `tpe_free` Optuna's TPE as it comes; the last two may evaluate a network again.

The settings of our sampler were chosen on `--synthetic` tables only; those of trained networks
were looked at afterwards.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from fronts import ask_times, bench_space
from made_up import FAMILIES, Array, Table, synthetic
from optuna.trial import TrialState
from paired import difference

from nasfuse.holes import Value
from nasfuse.results import SAMPLERS
from nasfuse.searching.members import Asked, Domain
from nasfuse.searching.samplers import make_sampler

AT = (25, 50, 100, 200)
CROWDED = 200  # with rejected trials, which samplers pass over one by one
REJECTED = 25  # in a row, before a member is drawn from what is left
BASELINES = ("rs_feas", "reg_evo", "tpe_free")


def read_table(options: argparse.Namespace) -> Table:
    import pandas  # type: ignore[import-untyped]

    reader = pandas.read_parquet if options.table.suffix == ".parquet" else pandas.read_csv
    text = {"dtype": {options.encoding: str}} if reader is pandas.read_csv else {}
    frame = reader(options.table, **text)
    columns = options.accuracy.split(",")
    return Table(
        frame[options.encoding].astype(str).tolist(),
        frame[columns].to_numpy(float),
        frame[options.report].to_numpy(float),
        frame[options.cost].to_numpy(float),
    )


@dataclass
class Problem:
    """One search on a table under a budget: what is allowed, what was evaluated so far."""

    table: Table
    budget: float
    random: random.Random
    chosen: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        usable = np.isfinite(self.table.report) & np.isfinite(self.table.observed).any(axis=1)
        self.allowed = np.flatnonzero(usable & (self.table.cost <= self.budget)).tolist()
        self.usable = set(self.allowed)
        self.names = [f"digit.{position}" for position in range(len(self.table.choices))]

    def cost(self, params: Mapping[str, Value]) -> float:
        row = self.row(params)
        return math.inf if row is None else float(self.table.cost[row])

    def row(self, params: Mapping[str, Value]) -> int | None:
        """Of a network that is in the table and within the budget."""
        row = self.table.rows.get("".join(str(params[name]) for name in self.names))
        return row if row in self.usable else None

    def suggest(self, trial: Asked) -> dict[str, Value]:
        pairs = zip(self.names, self.table.choices, strict=True)
        return {name: trial.suggest_categorical(name, choices) for name, choices in pairs}

    def params(self, row: int) -> dict[str, Value]:
        return dict(zip(self.names, self.table.codes[row], strict=True))

    def evaluate(self, row: int) -> float:
        seen = self.table.observed[row]
        value = float(self.random.choice(seen[~np.isnan(seen)].tolist()))
        self.chosen.append(row)
        self.values.append(value)
        return value

    def curve(self) -> list[float]:
        """Regret of the incumbent after each evaluation."""
        best = float(self.table.report[self.allowed].max())
        incumbents: list[int] = []
        for count, value in enumerate(self.values):
            better = not count or value > self.values[incumbents[-1]]
            incumbents.append(count if better else incumbents[-1])
        return [best - float(self.table.report[self.chosen[i]]) for i in incumbents]

    @property
    def domain(self) -> Domain:
        full = math.prod(len(choices) for choices in self.table.choices)
        sparse = len(self.table.codes) < full / 4
        members = [self.params(row) for row in self.allowed] if sparse else []
        return Domain(self.suggest, self.cost, members=members)


def rs_feas(problem: Problem, evaluations: int, seed: int) -> None:
    del seed
    rows = problem.random.sample(problem.allowed, min(evaluations, len(problem.allowed)))
    for row in rows:
        problem.evaluate(row)


def reg_evo(problem: Problem, evaluations: int, seed: int) -> None:
    del seed
    population: deque[tuple[float, int]] = deque(maxlen=20)
    while len(problem.values) < evaluations:
        if len(problem.values) < 20:
            row = problem.random.choice(problem.allowed)
        else:
            row = mutant(problem, max(problem.random.sample(list(population), 5))[1])
        population.append((problem.evaluate(row), row))


def mutant(problem: Problem, parent: int) -> int:
    while True:
        params = problem.params(parent)
        name = problem.random.choice(problem.names)
        others = [c for c in problem.table.choices[problem.names.index(name)] if c != params[name]]
        if others:
            row = problem.row(params | {name: problem.random.choice(others)})
            if row is not None or problem.random.random() < 1e-3:  # an island
                return parent if row is None else row


def ask_and_tell(
    problem: Problem,
    evaluations: int,
    seed: int,
    *,
    make: Callable[[Domain, int], optuna.samplers.BaseSampler],
    again: bool = False,
) -> None:
    """A sampler of Optuna's interface; what does not fit or is a duplicate costs nothing."""
    study = optuna.create_study(direction="maximize", sampler=make(problem.domain, seed))
    rejected, left = 0, set(problem.allowed)
    while len(problem.values) < min(evaluations, len(problem.allowed)):
        if rejected == REJECTED:
            study.enqueue_trial(problem.params(problem.random.choice(sorted(left))))
        trial = study.ask()
        row = problem.row(problem.suggest(trial))
        if row is None or not (again or row in left):
            study.tell(trial, state=TrialState.FAIL)
            rejected += 1
            study = without_failed(study)
            continue
        rejected = 0
        left.discard(row)
        study.tell(trial, problem.evaluate(row))


def without_failed(study: optuna.Study) -> optuna.Study:
    """The same without rejected trials once there are many: each parameter would pass them."""
    trials = study.get_trials(deepcopy=False)
    kept = [trial for trial in trials if trial.state != TrialState.FAIL]
    if len(trials) - len(kept) < CROWDED:
        return study
    fresh = optuna.create_study(directions=study.directions, sampler=study.sampler)
    fresh.add_trials(kept)
    return fresh


def plain_tpe(domain: Domain, seed: int) -> optuna.samplers.BaseSampler:
    del domain
    return optuna.samplers.TPESampler(seed=seed)


Algorithm = Callable[[Problem, int, int], None]


def algorithm(name: str) -> Algorithm:
    if name == "tpe_free":
        return partial(ask_and_tell, make=plain_tpe, again=True)
    if name in BASELINES:
        return {"rs_feas": rs_feas, "reg_evo": reg_evo}[name]
    return partial(ask_and_tell, make=partial(make_sampler, name))


Job = tuple[str, float, int]  # algorithm, budget, seed


def curve(table: Table, evaluations: int, job: Job) -> list[float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name, budget, seed = job
    problem = Problem(table, budget, random.Random(seed))
    algorithm(name)(problem, evaluations, seed)
    regret = problem.curve()
    return regret + regret[-1:] * (evaluations - len(regret))


def curves(table: Table, jobs: Sequence[Job], workers: int) -> dict[Job, list[float]]:
    work = partial(curve, table, AT[-1])
    if workers == 1:
        return {job: work(job) for job in jobs}
    with ProcessPoolExecutor(workers) as pool:
        return dict(zip(jobs, pool.map(work, jobs, chunksize=5), strict=True))


def judge(found: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Regret at some counts, differences to the baselines, and when rs_feas at 200 is reached."""
    target = found["rs_feas"][:, -1].mean()
    columns = [count - 1 for count in AT]
    summary: dict[str, dict[str, Any]] = {}
    for name, regret in found.items():
        below = np.flatnonzero(regret.mean(axis=0) <= target)
        error = regret.std(axis=0, ddof=1) / math.sqrt(len(regret))
        summary[name] = {
            "regret": {c + 1: round(float(regret[:, c].mean()), 3) for c in columns},
            "error": {c + 1: round(float(error[c]), 3) for c in columns},
            "to reach rs_feas at 200": int(below[0]) + 1 if len(below) else None,
            "against": {
                base: {c + 1: difference((regret - found[base])[:, c]) for c in columns}
                for base in BASELINES
                if name not in BASELINES and base in found
            },
        }
    return summary


def bench_table(table: Table, options: argparse.Namespace) -> dict[str, Any]:
    names = [*options.baselines.split(","), *options.samplers.split(",")]
    budgets = [float(budget) for budget in options.budget.split(",")]
    jobs = [(n, b, seed) for n in names for b in budgets for seed in range(options.seeds)]
    regret = curves(table, jobs, options.workers)
    return {
        f"budget {budget:g}": judge(
            {n: np.array([regret[n, budget, seed] for seed in range(options.seeds)]) for n in names}
        )
        for budget in budgets
    }


FEASIBLE = (0.3, 0.5, 0.8)  # shares of the networks that a budget allows


def bench_synthetic(options: argparse.Namespace) -> dict[str, Any]:
    """Regret in units of random search's at 25, by family and over all."""
    names = [*options.baselines.split(","), *options.samplers.split(",")]
    count = range(options.seeds)
    found: dict[str, dict[str, list[Array]]] = {family: {} for family in FAMILIES}
    for family, number in itertools.product(FAMILIES, range(len(FEASIBLE))):
        table = synthetic(family, options.first + number)
        budget = float(np.quantile(table.cost, FEASIBLE[number]))
        drawn = [curve(table, AT[0], ("rs_feas", budget, seed))[-1] for seed in range(200)]
        regret = curves(table, [(n, budget, s) for n in names for s in count], options.workers)
        for (name, _, _), values in regret.items():
            found[family].setdefault(name, []).append(np.array(values) / np.mean(drawn))
    everything = {n: np.array([c for f in FAMILIES for c in found[f][n]]) for n in names}
    each = {f: judge({n: np.array(c) for n, c in found[f].items()}) for f in FAMILIES}
    return {"all families": judge(everything), **each}


def show_judged(title: str, judged: Mapping[str, Mapping[str, Any]]) -> None:
    print(
        f"\n{title}: regret at {', '.join(map(str, AT))} (standard error); reaches rs_feas at 200"
    )
    for name, row in judged.items():
        cells = [f"{row['regret'][c]:.3f} ({row['error'][c]:.3f})" for c in AT]
        print(f"{name:10}", *cells, row["to reach rs_feas at 200"], sep="  ")
    for name, row in judged.items():
        for base, differences in row["against"].items():
            cells = [f"{m:+.3f} [{low:+.3f}, {high:+.3f}]" for m, low, high in differences.values()]
            print(f"{name} - {base}:", *cells, sep="  ")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--table", type=Path)
    mode.add_argument("--synthetic", action="store_true")
    mode.add_argument("--space", help="a search space, for fronts of made-up accuracies")
    mode.add_argument("--ask-times", action="store_true")
    for name in ("--accuracy", "--report", "--cost", "--encoding", "--budget"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="number of the first made-up table")
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--baselines", default=",".join(BASELINES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.table and None in (
        options.accuracy, options.report, options.cost, options.encoding, options.budget
    ):  # fmt: skip
        parser.error("--table needs --accuracy, --report, --cost, --encoding and --budget")
    return options


def main() -> None:
    options = parsed()
    if options.table:
        found = bench_table(read_table(options), options)
    elif options.synthetic:
        found = bench_synthetic(options)
    else:
        found = ask_times(options) if options.ask_times else bench_space(options)
    if options.json:
        print(json.dumps(found, indent=2))
    elif options.table or options.synthetic:
        for title, judged in found.items():
            show_judged(title, judged)
    else:
        for name, row in found.items():
            print(f"{name:10}", row)


if __name__ == "__main__":
    main()
