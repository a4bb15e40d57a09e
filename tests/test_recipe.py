from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nasfuse.errors import DocumentError
from nasfuse.recipe import FEWEST, Recipe, Rung, read_recipe


def test_few_images_are_all_used() -> None:
    small = Recipe().for_images(FEWEST // 2).rungs
    assert [rung.passes for rung in small] == [1, 2.5, 10]
    larger = Recipe().for_images(2 * FEWEST).rungs
    assert [rung.passes for rung in larger] == [0.5, 1.25, 5]
    assert Recipe().for_images(1_000_000) == Recipe()


@pytest.mark.parametrize(("epochs", "first"), [(1, 0.1), (2, 0.1), (8, 0.3), (20, 0.75), (60, 2)])
def test_a_longer_training_begins_with_a_longer_first_rung(epochs: int, first: float) -> None:
    rungs = Recipe().with_epochs(epochs).for_images(10_000).rungs
    assert rungs[0].passes == pytest.approx(first)
    assert rungs[-1].passes == epochs


@pytest.mark.parametrize("epochs", [1, 3, 20])
def test_epochs_that_were_asked_for_are_not_raised(epochs: int) -> None:
    """Of few images the first rung is shortened, where otherwise the last would be longer."""
    asked = Recipe().with_epochs(epochs)
    assert [rung.passes for rung in asked.for_images(800, as_long=True).rungs] == pytest.approx(
        [max(0.1, 0.0375) * epochs if epochs < 10 else 1, epochs / 4, epochs]
    )
    assert asked.for_images(800).rungs[-1].passes == max(10, epochs)


def test_epochs_are_those_of_the_last_rung() -> None:
    assert [rung.epochs for rung in Recipe().with_epochs(7).rungs] == [1, 7, 7]
    apart = Recipe(rungs=(Rung(share=0.5, epochs=1), Rung(share=1, epochs=1)))
    assert [rung.epochs for rung in apart.with_epochs(7).rungs] == [1, 7]


def test_a_paused_run_goes_on_on_the_next_rung() -> None:
    recipe = Recipe().with_epochs(4)
    assert [recipe.run(rung) for rung in range(3)] == [0, 1, 1]
    assert [recipe.work(rung) for rung in range(3)] == [0.075, 1, 3]
    for rungs in (
        (Rung(share=1, epochs=1, stop=0.5), Rung(share=1, epochs=2)),
        (Rung(share=1, epochs=1), Rung(share=1, epochs=2, stop=0.5)),
    ):
        with pytest.raises(ValueError, match="the next does not go on"):
            Recipe(rungs=rungs)


def test_a_file_overrides_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("batch: 64\nrungs: [{share: 0.5, epochs: 1}, {share: 1, epochs: 3}]")
    recipe = read_recipe(path)
    assert (recipe.batch, recipe.rate) == (64, Recipe().rate)
    assert [rung.passes for rung in recipe.rungs] == [0.5, 3]


def test_half_a_batch_has_lower_rates() -> None:
    recipe, halved = Recipe(batch=64), Recipe(batch=64).halved()
    assert (halved.batch, halved.halved().batch) == (32, 16)
    assert halved.rate == recipe.rate / 2
    assert halved.filter_rate == pytest.approx(recipe.filter_rate / 2**0.5)
    assert halved.rungs == recipe.rungs
    assert Recipe(batch=2).halved().batch == 2, "batch norm needs two"


def test_a_recipe_that_is_not_there_is_offered(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no recipe") as caught:
        read_recipe(tmp_path / "my flip.yaml")
    subprocess.run(caught.value.fix.split("   ")[0], shell=True, check=True)
    assert read_recipe(tmp_path / "my flip.yaml") == Recipe()
    with pytest.raises(DocumentError) as caught:
        read_recipe(tmp_path / "my flp.yaml")
    assert caught.value.fix == f"--recipe '{tmp_path}/my flip.yaml'"


@pytest.mark.parametrize("text", ["bach: 64", "batch: 1", "rate: -1", "rungs: []", "- 3"])
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError, match="not a recipe") as caught:
        read_recipe(path)
    assert caught.value.where == str(path)
