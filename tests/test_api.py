from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nasfuse.api import resume
from nasfuse.choosing import choose
from nasfuse.commands import next_commands
from nasfuse.errors import DataError, UsageError
from nasfuse.planning import SearchOptions, continuation, limits_of, plan_search
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.limits import Limits
from nasfuse.searching.study import Study, images_again

MakeResult = Callable[..., Result]


class Finished:
    """A study as `choose` sees it."""

    def __init__(self, results: list[Result], folder: Path) -> None:
        self.results, self.folder = results, folder
        self.settings: Any = type(
            "Settings", (), {"name": "a", "recipe": Recipe(), "validation": 1000}
        )


def test_a_number_never_means_another_network_s_key(
    tmp_path: Path, make_result: MakeResult
) -> None:
    study: Any = Finished(
        [
            make_result(3, key="aaaaaaaaaaaa", rung=0, accuracy=0.5),
            make_result(1, key="3bbbbbbbbbbb", rung=1, accuracy=0.9),
            make_result(2, key="3bbbcccccccc", rung=1, accuracy=0.8),
        ],
        tmp_path,
    )
    assert choose(study, "3").number == 3
    assert choose(study, "best").number == 1
    assert choose(study, "3bbbb").number == 1
    for ambiguous in ("3b", "3bbb", "7"):
        with pytest.raises(UsageError, match="no trained network"):
            choose(study, ambiguous)


def test_the_best_is_the_cheapest_of_those_that_are_tied(
    tmp_path: Path, make_result: MakeResult
) -> None:
    repeats = {1: (0.8, 0.81), 2: (0.8, 0.82), 3: (0.2, 0.21)}
    results = [
        make_result(number, rung=2, repeat=repeat, accuracy=accuracy, macs=1000 * number)
        for number, accuracies in repeats.items()
        for repeat, accuracy in enumerate((0.9 - number / 100, *accuracies))
    ]
    study: Any = Finished(results, tmp_path)
    assert choose(study, "best").number == 1
    assert choose(study, "best").repeat == 0
    assert choose(study, "2").repeat == 0


def test_the_highest_rung_of_a_network_is_meant(tmp_path: Path, make_result: MakeResult) -> None:
    both = [make_result(3, key="a" * 12, rung=rung, accuracy=0.5) for rung in (0, 1)]
    study: Any = Finished(both, tmp_path)
    assert choose(study, "3").rung == 1


def test_a_resumed_search_takes_up_what_the_first_was_told() -> None:
    settings: Any = type(
        "Settings",
        (),
        {
            "name": "s",
            "trials": 9,
            "seconds": None,
            "workers": 1,
            "gpus_per_trial": 0.0,
            "ray_address": None,
        },
    )
    resources: dict[str, Any] = {"workers": None, "gpus_per_trial": None, "ray_address": None}
    limits, found = continuation(settings, limits=Limits(None, None), **resources)
    assert (limits, found.workers) == (Limits(9, None), 1)
    limits, found = continuation(
        settings, limits=Limits(None, 60.0), workers=2, gpus_per_trial=None, ray_address=None
    )
    assert (limits, found.workers) == (Limits(None, 60.0), 2)
    assert limits_of(None, None) == Limits(None, 420.0)


CODE = """
import numpy as np

def make():
    open("ran", "a").write("x")
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    return {"images": images, "labels": labels}
"""


def test_a_study_s_file_cannot_make_code_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_images.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = SearchOptions("1M", data="own_images:make", trials=1, workers=1)
    plan = plan_search(replace(options, studies=tmp_path / "else where"))
    study = Study.create(plan.folder, plan.settings)
    assert study.settings.data == "own_images:make"
    (tmp_path / "ran").unlink()
    with pytest.raises(UsageError, match="come from a function, own_images:make") as caught:
        resume(study, plan.limits, plan.resources)
    elsewhere = f"--studies '{tmp_path / 'else where'}' --data own_images:make"
    assert caught.value.fix == f"nasfuse resume own_images-make-1 {elsewhere}"
    assert next_commands(study)["resume"].endswith("--data own_images:make")
    assert not (tmp_path / "ran").exists()
    again = images_again(study.settings, "own_images:make", again="")
    assert again.fingerprint == plan.dataset.fingerprint
    assert (tmp_path / "ran").exists()


def test_rungs_are_for_the_images_unless_a_recipe_s_file_says_which(tmp_path: Path) -> None:
    def rungs(text: str, epochs: int | None = None) -> list[tuple[float, int]]:
        (tmp_path / "recipe.yaml").write_text(text)
        options = SearchOptions("4M", data="digits", trials=1, epochs=epochs, studies=tmp_path)
        plan = plan_search(replace(options, recipe=tmp_path / "recipe.yaml"))
        assert plan.settings.recipe.augmentation.flip is False
        return [(rung.share, rung.epochs) for rung in plan.settings.recipe.rungs]

    flip = "augmentation: {flip: false}"
    assert rungs(flip) == [(0.8643, 1), (1, 9), (1, 9)]  # 1,000 of 1,157 images
    assert rungs(flip, epochs=4) == [(0.4, 1), (1, 4), (1, 4)]
    own = f"{flip}\nrungs: [{{share: 0.5, epochs: 1}}, {{share: 1, epochs: 3}}]"
    assert rungs(own) == [(0.5, 1), (1, 3)]
    assert rungs(own, epochs=4) == [(0.5, 1), (1, 4)]


def test_images_that_moved_are_the_same_and_others_are_not(tmp_path: Path) -> None:
    def photos(name: str, shade: int) -> str:
        for number in range(20):
            path = tmp_path / name / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), shade * number).save(path)
        (tmp_path / name / "a" / "bad.png").write_text("<html>")
        return str(tmp_path / name)

    options = SearchOptions("1M", data=photos("one", 5), skip_bad=1, trials=1, workers=1)
    settings = plan_search(options).settings
    assert settings.skip_bad == 1
    (tmp_path / "one").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="no dataset"):
        images_again(settings, None, again="")
    found = images_again(settings, str(tmp_path / "moved"), again="")
    assert found.fingerprint == settings.fingerprint
    with pytest.raises(DataError, match="images have changed"):
        images_again(settings, photos("other", 6), again="")
