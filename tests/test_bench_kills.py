"""The benchmark that kills searches: what its seed draws, and a short run that has to go well."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import killed_search
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_kills.py"


def test_the_seed_chooses_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    search = killed_search.Search(tmp_path / "search", 4, killed_search.Found())
    for number in range(4):
        (search.study / "trials" / str(number)).mkdir(parents=True)
        (search.study / "trials" / str(number) / "rung0.stuck").write_text(f"{number} 600 here")

    def process(number: int) -> Any:
        return SimpleNamespace(pid=number, kill=lambda: killed.append(number))

    monkeypatch.setattr(search, "_processes", lambda: map(process, range(4)))

    def chosen(seed: int) -> list[int]:
        killed.clear()
        search.deaths.clear()
        random.seed()
        generator = random.Random(seed)
        while search._kill_worker(generator):
            pass
        return list(killed)

    assert len(chosen(66)) == 8, "each twice"
    assert chosen(66) == chosen(66) != chosen(67)


@pytest.mark.slow
def test_three_kills_lose_and_repeat_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--trials", "5", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    if not found["wrong"].pop("late"):  # which a busy machine may be
        assert run.returncode == 0, run.stdout + run.stderr
    assert found["kills"] >= 3
    assert not any(found["wrong"].values()), found["notes"]
