"""How many trials share a GPU: the arithmetic, the probe on a CPU, and what is said of it.

Only torch's answers about a GPU are made up here; nothing of this has run on one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nasfuse import machine, planning
from nasfuse.architecture import Architecture
from nasfuse.data.dataset import Dataset
from nasfuse.memory import needed_memory
from nasfuse.network import cost
from nasfuse.planning import SearchOptions, plan_search
from nasfuse.recipe import Recipe
from nasfuse.screens import make_console, print_plan
from nasfuse.searching import probing, sharing
from nasfuse.searching.probing import Meter, Probe, answer
from nasfuse.searching.sharing import (
    AT_ONCE,
    DAEMON,
    IN_TURN,
    Sharing,
    dearest,
    memory_fraction,
    mps_runs,
    share_gpus,
    trials_per_gpu,
)
from nasfuse.searching.study import Settings
from nasfuse.training import Training

GB = 10**9
MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    ("peak", "free", "mps", "expected"),
    [
        (2 * GB, 80 * GB, False, IN_TURN),
        (2 * GB, 80 * GB, True, AT_ONCE),
        (10 * GB, 80 * GB, True, 7),  # a tenth is left alone
        (20 * GB, 80 * GB, False, 3),
        (75 * GB, 80 * GB, True, 1),
        (100 * GB, 80 * GB, True, 1),
    ],
)
def test_trials_are_as_many_as_fit(peak: int, free: int, mps: bool, expected: int) -> None:
    trials = trials_per_gpu(Probe(peak, free, 80 * GB), mps=mps)
    assert trials == expected
    share = Sharing(trials, mps).share
    assert int(1 / share) == trials
    assert trials * share <= 1


def test_what_a_trial_may_take_leaves_room_for_cuda_itself() -> None:
    assert memory_fraction(0.25, 80 * GB) == pytest.approx(0.25 - 0.6 / 80)
    assert memory_fraction(0.1, 4 * GB) == 0.05  # of a small GPU the half at least


def test_mps_is_seen_by_its_daemon_or_its_pipe(tmp_path: Path) -> None:
    assert mps_runs({}, {"bash", DAEMON})
    assert mps_runs({}, {"nvidia-cuda-mps"})  # as Linux cuts it
    assert not mps_runs({}, {"bash", "nvidia-persistenced"})
    elsewhere = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert not mps_runs(elsewhere, {"bash"})
    (tmp_path / "control").touch()
    assert mps_runs(elsewhere, {"bash"})
    assert not mps_runs({})  # the processes of this machine, which has none


def test_a_meter_counts_what_cuda_itself_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 3 * GB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (79.5 * GB, 80 * GB))
    alone = Meter(torch.device("cuda"))
    assert (alone.free, alone.total, alone.peak) == (80 * GB, 80 * GB, 3.5 * GB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50 * GB, 80 * GB))
    beside = Meter(torch.device("cuda"))
    assert (beside.free, beside.peak) == (51 * GB, 4 * GB)  # 29 GB are somebody else's
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0.25 * GB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (79.25 * GB, 80 * GB))
    holding = Meter(torch.device("cuda"))  # images, which are part of what is reserved at most
    assert (holding.free, holding.peak) == (80 * GB, 3.5 * GB)


def request(architecture: Architecture, **changes: Any) -> dict[str, Any]:
    recipe = Recipe(batch=16).model_dump(mode="json")
    images = [96, architecture.channels, 9, 9]
    values = {"device": "cpu", "recipe": recipe, "images": images}
    return {**values, "architectures": [architecture.to_json()], **changes}


def test_a_probe_trains_and_reads_the_peak(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([5])
    monkeypatch.setattr(Meter, "peak", property(lambda meter: next(peaks)))
    trained: list[int] = []

    def epoch(training: Training, until: int) -> float:
        trained.append(training.recipe.batch)
        return advance(training, until)

    advance = Training.advance
    monkeypatch.setattr(Training, "advance", epoch)
    assert answer(request(architecture)).peak == 5
    assert set(trained) == {16}


def test_a_probe_ends_with_the_last_batch_of_an_epoch(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, sizes = Training._compute, []

    def seen(training: Training, x: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return compute(training, x, y)

    monkeypatch.setattr(Training, "_compute", seen)
    answer(request(architecture))
    assert sizes == [*[16] * probing.STEPS, 15]


def test_what_does_not_fit_takes_all(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probing, "_train", full)
    found = answer(request(architecture))
    assert found.peak == found.free
    assert trials_per_gpu(found, mps=True) == 1


def test_the_dearest_members_need_the_most_memory(make_settings: MakeSettings) -> None:
    settings = make_settings(budget=2_000_000)
    found, device = dearest(settings, count=1000), torch.device("cpu")
    assert all(cost(one).larger <= settings.budget for one in found)
    first, *_, last = found
    assert len({one.key for one in found}) == len(found) > 10
    assert needed_memory(first, 64, device=device) > 2 * needed_memory(last, 64, device=device)
    assert list(found[: sharing.PROBED]) == dearest(settings)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's process measures the CPU, in place of a GPU that is not here."""
    run = subprocess.run

    def elsewhere(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        options["input"] = options["input"].replace('"cuda"', '"cpu"')
        return run(command, **options)

    monkeypatch.setattr(sharing, "subprocess", SimpleNamespace(run=elsewhere, **ERRORS))


ERRORS = {"TimeoutExpired": subprocess.TimeoutExpired}


@pytest.mark.usefixtures("on_cpu")
def test_a_process_of_its_own_measures(make_settings: MakeSettings, dataset: Dataset) -> None:
    found = share_gpus(make_settings(budget=500_000), dataset)
    assert found.problem is None
    assert found.probe is not None
    assert 50e6 < found.probe.peak < 5e9, "torch alone takes more than the least of these"
    assert found.probe.peak < found.probe.free <= 1.1 * found.probe.total
    assert "at once on each; the dearest networks take up to" in found.text


def test_without_a_probe_trials_are_four(make_settings: MakeSettings, dataset: Dataset) -> None:
    found = share_gpus(make_settings(budget=500_000), dataset)
    assert (found.trials, found.share, found.probe) == (4, 0.25, None)
    assert found.problem
    assert "memory not measured" in found.text


def test_a_plan_takes_up_and_says_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(planning, "cores", lambda: 64)
    probed = Sharing(7, True, Probe(10 * GB, 79 * GB, 80 * GB))
    monkeypatch.setattr(planning, "share_gpus", lambda settings, dataset: probed)
    options = SearchOptions("1M", studies=tmp_path, trials=3)
    plan = plan_search(options)
    assert plan.resources.workers == 14
    assert plan.settings.gpus_per_trial == plan.resources.gpus_per_trial == probed.share
    print_plan(make_console(False), plan)
    said = capsys.readouterr().out
    assert "7 at once on each; the dearest networks take up to 10.0 of 79.0 GB" in said
    assert "MPS runs" in said
    asked = plan_search(SearchOptions("1M", studies=tmp_path, trials=3, gpus_per_trial=0.5))
    assert (asked.sharing, asked.resources.workers) == (None, 4)
    print_plan(make_console(False), asked)
    assert "0.5 for each trial; MPS does not run" in capsys.readouterr().out


@pytest.mark.parametrize("timed", [{"objective": "latency"}, {"max_latency": "20ms"}])
def test_who_measures_latency_has_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timed: dict[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(planning, "cores", lambda: 64)
    monkeypatch.setattr(planning, "check_latency", lambda *parts: None)
    monkeypatch.delattr(planning, "share_gpus")
    options = SearchOptions("1M", studies=tmp_path, trials=3, **timed)  # type: ignore[arg-type]
    plan = plan_search(options)
    assert (plan.resources.workers, plan.resources.gpus_per_trial) == (2, 1)
    assert plan.settings.gpus_per_trial == 1, "for a search that goes on later"
    asked = plan_search(replace(options, gpus_per_trial=0.5))
    assert asked.resources.workers == 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plan_search(options).settings.gpus_per_trial is None


def test_the_doctor_says_whether_mps_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    about = SimpleNamespace(name="H100", total_memory=80 * GB)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
    texts = [found.text for found in machine.examine(tmp_path) if found.subject == "gpu"]
    assert any("H100, 80 GB" in text for text in texts)
    assert any("MPS does not run" in text for text in texts)


def test_a_driver_that_is_too_old_leaves_the_cpu_and_the_doctor_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def init() -> None:
        raise RuntimeError(f"{old}. Please update your GPU driver.")

    old = "The NVIDIA driver on your system is too old (found version 11040)"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML's, which asks no driver
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert planning.resources_of(None, None, None).gpus_per_trial == 0
    [found] = [found for found in machine.examine(tmp_path) if found.subject == "gpu"]
    assert found.text.startswith("none that torch can use")
    assert found.text.endswith(old)
    assert "newer driver" in found.fix
