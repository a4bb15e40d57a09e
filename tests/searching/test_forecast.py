"""The forecast times what a search does most: on a GPU steps that were captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nasfuse.architecture import Architecture
from nasfuse.capturing import WARMUP
from nasfuse.data.batches import Images
from nasfuse.data.dataset import Dataset
from nasfuse.recipe import Recipe
from nasfuse.searching import forecast
from nasfuse.searching.extremes import reachable
from nasfuse.searching.study import Settings
from nasfuse.training import Training

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "batch", "expected"),
    [
        ("cpu", 16, [1, 3]),
        ("cpu", 128, [1, 2]),  # all images are one batch
        ("cuda", 4, [WARMUP + 1, 24]),
        ("cuda", 32, [2, 3]),  # an epoch has so few that none is captured
    ],
)
def test_steps_before_the_clock_and_by_it(
    make_settings: Callable[..., Settings],
    dataset: Dataset,
    architecture: Architecture,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    batch: int,
    expected: list[int],
) -> None:
    advance, of, done = Training.advance, Images.of, []

    def noted(training: Training, until: int) -> float:
        loss = advance(training, until)
        done.append(training.done)
        return loss

    def here(*parts: Any, **options: Any) -> Images:
        return of(*parts, **{**options, "device": CPU})

    monkeypatch.setattr(Training, "advance", noted)
    monkeypatch.setattr(Images, "of", here)
    released: list[torch.device] = []
    monkeypatch.setattr(forecast, "release_memory", released.append)
    settings = make_settings(recipe=Recipe(batch=batch))
    speed = forecast._measure(architecture, settings, dataset, torch.device(device))
    assert speed.train > 0
    assert done == expected
    assert bool(released) == (device == "cuda"), "where a network before would leave its graph"


def test_a_budget_that_hardly_any_network_meets_can_be_forecast(
    make_settings: Callable[..., Settings],
) -> None:
    least = reachable(make_settings().search_space).least
    assert forecast.disk_needed(make_settings(budget=least), trials=1, workers=1) > 0
