"""The benchmark of samplers runs on any table with an encoding of digits."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_search.py"


def bench(*arguments: str) -> Any:
    command = [sys.executable, str(SCRIPT), *arguments, "--json", "--seeds", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.slow
def test_a_small_table_with_a_training_missing(tmp_path: Path) -> None:
    lines = ["code,one,two,mean,price"]
    for code in itertools.product("012", repeat=4):
        value = sum(map(int, code))
        second = "" if value == 3 else value + 0.1
        lines.append(f"{''.join(code)},{value - 0.1},{second},{value},{value}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    columns = ("--accuracy", "one,two", "--report", "mean", "--cost", "price")
    found = bench(
        "--table", str(table), *columns, "--encoding", "code", "--budget", "6",
        "--samplers", "guided",
    )  # fmt: skip
    rows = found["budget 6"]
    assert set(rows) == {"rs_feas", "reg_evo", "tpe_free", "guided"}
    assert rows["guided"]["regret"]["200"] == 0  # 81 networks: all of them were seen
    assert len(rows["guided"]["against"]["rs_feas"]["25"]) == 3
