"""The benchmarks of GPUs and of memory run, on a CPU and tiny; their figures mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_gpu
import pytest

from nasfuse.architecture import Architecture

SCRIPTS = Path(__file__).parent.parent / "scripts"


def figures(script: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / script), *words, "--device", "cpu", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.slow
def test_all_tables_of_a_gpu(tmp_path: Path, architecture: Architecture) -> None:
    file = tmp_path / "a.json"
    file.write_text(architecture.to_json())
    words = "--data digits --kinds residual --macs 300K --together 1,2 --epochs 1 --seconds 0.1"
    network = ["--no-resnet", "--architecture", str(file)]
    tables = figures("bench_training.py", *words.split(), *network)["tables"]
    [speed] = tables["speed"]
    assert speed["gain"] == pytest.approx(speed["graphs"] / speed["without"])
    assert [row["at once"] for row in tables["packing"]] == [1, 2]
    [trained] = tables["accuracy"]
    assert trained["network"] != architecture.key, "it has the classes of the images"
    assert 0 < trained["test accuracy"] < 1
    assert trained["an hour"] == pytest.approx(3600 / trained["seconds"])


class Member:
    """A process that measures 8 images a second for itself, of which some run at once."""

    running = 0

    def __init__(self, *unused: object, **options: object) -> None:
        self.stdin, self.stdout = self, self

    def readline(self) -> str:
        return "ready\n"

    def write(self, text: str) -> None:
        assert text == "go\n"
        Member.running += 1

    def flush(self) -> None:
        pass

    def communicate(self, text: str | None = None) -> tuple[str, None]:
        if text:
            self.write(text)
        rate = 8.0 / Member.running
        if text:
            Member.running -= 1
        return f"{rate}\n", None


def test_processes_of_the_packing_table_run_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("data", "device", "batch", "macs", "kinds")
    options = SimpleNamespace(together="1,4", seconds=1, **dict.fromkeys(names, ""))
    monkeypatch.setattr(subprocess, "Popen", Member)
    rows = bench_gpu.packing(SimpleNamespace(options=options))  # type: ignore[arg-type]
    assert next(rows)["images/s"] == 8
    Member.running = 0
    assert next(rows)["images/s"] == 8, "four share what one has"


def test_what_a_call_of_the_loop_costs_is_spread_over_many_steps() -> None:
    asked: list[int] = []
    training = SimpleNamespace(done=0, advance=asked.append, recipe=SimpleNamespace(batch=1))
    bench_gpu.stepping(training)()  # type: ignore[arg-type]
    assert asked[0] >= 100


def test_accuracy_on_validation_images_is_not_called_that_of_tests(
    tmp_path: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    file.write_text(architecture.to_json())
    words = {"device": "cpu", "data": "digits", "batch": 64, "epochs": 1}
    options = Namespace(**words, no_resnet=True, architecture=str(file))
    bench = bench_gpu.Bench(options)
    assert "test accuracy" in next(bench_gpu.accuracies(bench))
    monkeypatch.setattr(bench_gpu, "load_test", lambda *_, **__: None)
    [row] = bench_gpu.accuracies(bench)
    assert "test accuracy" not in row
    assert 0 < row["validation accuracy"] < 1


@pytest.mark.slow
def test_memory_with_and_without_recomputation() -> None:
    [row] = figures("bench_memory.py", "--depths", "6", "--batch", "64")["rows"]
    assert row["layers"] == 18
    assert row["recomputed"]["peak"] < row["plain"]["peak"] < row["estimate"]
