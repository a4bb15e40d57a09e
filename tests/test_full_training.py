"""Full trainings: seeds, resumption, the test images, and what is refused."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nasfuse import full_training, training_plan
from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.data.dataset import Dataset, Split
from nasfuse.errors import DataError, SearchError, SetupError, StorageError, UsageError
from nasfuse.exporting.origin import origin_of_training
from nasfuse.finals import REPEATS
from nasfuse.full_training import FullTraining, Moment
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study
from nasfuse.searching.worker import REPEAT_STRIDE
from nasfuse.trained import Scores, Trained, find_trained, read_trained
from nasfuse.training import NonFiniteError, Training
from nasfuse.training_plan import TrainOptions, plan_training
from nasfuse.trial_runs import training_runs

Plan = Callable[..., FullTraining]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> list[str]:
    """How often images of each kind were loaded; `stripes/` is the tiny data set."""
    seen: list[str] = []

    def load(source: str, **options: Any) -> Dataset:
        seen.append("search")
        return dataset

    def load_test(source: str, **options: Any) -> Split | None:
        seen.append("test")
        return dataset.validation if "untested" not in source else None

    monkeypatch.setattr(training_plan, "load_dataset", load)
    monkeypatch.setattr(training_plan, "require_test", lambda *_, **__: None)
    monkeypatch.setattr(full_training, "load_test", load_test)
    return seen


@pytest.fixture
def plan(tmp_path: Path, architecture: Architecture, reads: list[str]) -> Plan:
    """Plans of a small network for two epochs and two seeds."""
    file = tmp_path / "a.json"
    file.write_text(architecture.to_json())

    def make(**changes: Any) -> FullTraining:
        options: dict[str, Any] = {
            "epochs": 2,
            "seeds": 2,
            "data": "stripes",
            "out": tmp_path / "t",
        }
        return plan_training(TrainOptions(str(file), **{**options, **changes}))[0]

    return make


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(path) for path in sorted(folder.glob("seed*.safetensors"))]


def same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a
    )


def test_no_seed_is_one_of_the_search_that_chose_the_network(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That search's trainings were lucky, or it would have chosen another network."""
    seeds: set[int] = set()

    class Noted(Training):
        def __init__(self, *arguments: Any, seed: int, **options: Any) -> None:
            seeds.add(seed)
            super().__init__(*arguments, seed=seed, **options)

    monkeypatch.setattr(full_training, "Training", Noted)
    planned = plan()
    planned.run()
    settings = planned.settings
    of_search = {
        (settings.seed + repeat * REPEAT_STRIDE + int(settings.architecture.key, 16)) % 2**31
        for repeat in range(REPEATS + 1)
    }
    assert len(seeds) == 2
    assert not seeds & of_search


def test_seeds_are_trained_and_the_test_images_read_once(plan: Plan, reads: list[str]) -> None:
    moments: list[Moment] = []
    planned = plan(epochs=6)
    result = planned.run(moments.append)
    assert reads == ["search", "test"]
    assert [(m.run, m.epoch) for m in moments] == [(s, e + 1) for s in range(2) for e in range(6)]
    assert moments[-1].left == 0
    assert result.validation is not None
    assert result.test is not None
    assert result.validation.mean > 0.8, "the data are easy"
    assert result.test.images == 30
    assert sum(map(sum, result.test.confusion)) == 60
    assert result.validation.accuracies[result.chosen] == max(result.validation.accuracies)
    first, second = weights(planned.folder)
    assert not same([first], [second])
    assert read_trained(planned.folder) == result
    assert not list(planned.folder.glob("*.ckpt"))


def test_the_same_call_again_trains_nothing_and_reads_no_test_images(
    plan: Plan, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = plan().run()
    monkeypatch.setattr(training_plan, "require_test", lambda *_, **__: pytest.fail("a look"))
    assert plan().run(lambda moment: pytest.fail("an epoch")) == result
    assert reads.count("test") == 1


def test_weights_changed_after_the_training_are_refused(plan: Plan) -> None:
    planned = plan(seeds=1)
    result, path = planned.run(), planned.folder / "seed1.safetensors"
    assert origin_of_training(planned.folder, result).weights == path
    flip_a_bit(path)
    with pytest.raises(StorageError, match="not those that were trained"):
        origin_of_training(planned.folder, result)


@pytest.mark.parametrize("damaged", ["seed1.safetensors", "seed1.json"])
def test_a_finished_seed_that_was_changed_is_trained_again_and_that_is_said(
    plan: Plan, tmp_path: Path, damaged: str
) -> None:
    whole = plan(out=tmp_path / "whole")
    expected = whole.run()

    def kill(moment: Moment) -> None:
        if moment.run == 1:
            raise KeyboardInterrupt

    killed = plan()
    with pytest.raises(KeyboardInterrupt):
        killed.run(kill)
    flip_a_bit(killed.folder / damaged)
    moments: list[Moment] = []
    result = plan().run(moments.append)
    assert moments[0].notice is not None
    assert "seed 1" in moments[0].notice
    assert "trained again" in moments[0].notice
    # nothing is left to train of the first seed, whose checkpoint is there
    assert [(m.run, m.epoch, bool(m.notice)) for m in moments] == [(0, 2, True), (1, 2, False)]
    assert same(weights(killed.folder), weights(whole.folder))
    assert result.test == expected.test


def test_weights_that_are_changed_before_they_are_judged_are_not(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    planned, judge = plan(), FullTraining._judge

    def changed(self: FullTraining, runs: Any) -> Trained:
        flip_a_bit(self.folder / "seed1.safetensors")
        return judge(self, runs)

    with monkeypatch.context() as patch:
        patch.setattr(FullTraining, "_judge", changed)
        with pytest.raises(StorageError, match="not those that were trained") as caught:
            planned.run()
    assert "again" in caught.value.fix
    assert "test" not in reads
    assert plan().run().test is not None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)


def test_a_second_training_in_a_folder_is_told_who_holds_it(plan: Plan) -> None:
    first, second = plan(), plan()

    def begin(moment: Moment) -> None:
        with pytest.raises(StorageError, match="already") as caught:
            second.run()
        assert f"process {os.getpid()}" in caught.value.why

    first.run(begin)
    assert not (first.folder / "training.pid").exists()


def test_a_killed_training_goes_on_bit_for_bit(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan(out=tmp_path / "whole", epochs=3)
    expected = whole.run()

    def kill(moment: Moment) -> None:
        if (moment.run, moment.epoch) == (1, 2):
            raise KeyboardInterrupt

    killed = plan(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        killed.run(kill)
    told: list[tuple[int, int]] = []
    result = plan(epochs=3).run(lambda moment: told.append((moment.run, moment.epoch)))
    assert told == [(1, 3)]
    assert same(weights(killed.folder), weights(whole.folder))
    assert (result.validation, result.test) == (expected.validation, expected.test)
    assert [run.epochs for run in result.runs] == [run.epochs for run in expected.runs]


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), "train and test differ in shape"),
        (np.zeros((3, 8, 8), np.uint8), "do not fit together"),
    ],
)
def test_test_images_that_do_not_fit_are_refused_before_anything_is_trained(
    tmp_path: Path, architecture: Architecture, tests: Any, said: str
) -> None:
    labels = np.arange(60) % 3
    images = np.zeros((60, 8, 8), np.uint8)
    np.savez(
        tmp_path / "x.npz",
        allow_pickle=False,
        images=images,
        labels=labels,
        test_images=tests,
        test_labels=labels[:4],
    )
    (tmp_path / "a.json").write_text(architecture.to_json())
    source = str(tmp_path / "x.npz")
    options = TrainOptions(str(tmp_path / "a.json"), data=source, out=tmp_path / "t")
    with pytest.raises(DataError, match=said):
        plan_training(options)
    assert not (tmp_path / "t").exists()


def test_without_test_images_only_validation_is_reported(plan: Plan) -> None:
    result = plan(data="untested").run()
    assert result.test is None
    assert result.validation is not None


def test_networks_trained_on_validation_images_are_not_judged_by_them(
    plan: Plan, dataset: Dataset
) -> None:
    planned = plan(all_data=True, epochs=1)
    seen: list[int] = []
    original = Training.__init__

    def spy(self: Training, network: Any, images: Any, *args: Any, **options: Any) -> None:
        seen.append(len(images))
        original(self, network, images, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", spy)
        result = planned.run()
    assert seen == [126, 126]
    assert result.validation is None
    assert result.chosen == 0
    assert result.test is not None
    assert all(epoch.accuracy is None for run in result.runs for epoch in run.epochs)


def test_other_options_need_another_folder(plan: Plan, tmp_path: Path) -> None:
    plan(epochs=1).run()
    with pytest.raises(UsageError, match="another training"):
        plan(epochs=2).run()
    plan(epochs=2, out=tmp_path / "u").run()


@pytest.mark.usefixtures("reads")
def test_a_recipe_without_rungs_trains_as_long_as_the_search_did(
    tmp_path: Path, make_settings: Callable[..., Settings], make_result: Callable[..., Result]
) -> None:
    recipe = Recipe().with_epochs(30)
    study = Study.create(tmp_path / "a", make_settings(recipe=recipe))
    study.record(make_result(0, rung=recipe.top))

    def epochs(text: str) -> int:
        (tmp_path / "recipe.yaml").write_text(text)
        options = TrainOptions("best", data="stripes", recipe=tmp_path / "recipe.yaml")
        return plan_training(replace(options, studies=tmp_path))[0].settings.epochs

    assert epochs("batch: 32") == 30
    assert epochs("rungs: [{share: 1, epochs: 1}, {share: 1, epochs: 25}]") == 25


def test_a_damaged_checkpoint_is_named(plan: Plan) -> None:
    planned = plan()
    planned.folder.mkdir()
    (planned.folder / "seed1.ckpt").write_bytes(b"\x80\x04]nothing")
    with pytest.raises(StorageError, match="checkpoint") as caught:
        planned.run()
    assert "seed1.ckpt" in caught.value.where


def test_a_flipped_byte_costs_an_epoch_and_is_said(plan: Plan, tmp_path: Path) -> None:
    whole = plan(out=tmp_path / "whole", epochs=4, seeds=1)
    whole.run()

    def kill(moment: Moment) -> None:
        if moment.epoch == 3:
            raise KeyboardInterrupt

    killed = plan(epochs=4, seeds=1)
    with pytest.raises(KeyboardInterrupt):
        killed.run(kill)
    path = killed.folder / "seed1.ckpt"
    content = bytearray(path.read_bytes())
    content[500] ^= 16
    path.write_bytes(content)
    (killed.folder / f".seed1.ckpt.tmp-{os.getpid()}-1").write_bytes(b"left by a kill")
    moments: list[Moment] = []
    plan(epochs=4, seeds=1).run(moments.append)
    assert [moment.epoch for moment in moments] == [3, 4]
    assert moments[0].notice is not None
    assert "seed1.ckpt" in moments[0].notice
    assert moments[1].notice is None
    assert same(weights(killed.folder), weights(whole.folder))
    assert not [p.name for p in killed.folder.iterdir() if "tmp" in p.name or "ckpt" in p.name]


def test_a_diverging_seed_is_an_error_of_the_training(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(self: Training) -> float:
        raise NonFiniteError("training loss is nan")

    monkeypatch.setattr(Training, "epoch", diverge)
    with pytest.raises(SearchError, match="seed 1 broke down"):
        plan().run()


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A device whose memory holds batches of up to so many images, from the second epoch on."""
    epoch = Training.epoch

    def holds(batch: int) -> None:
        def limited(training: Training) -> float:
            if training.done and training.recipe.batch > batch:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return epoch(training)

        monkeypatch.setattr(Training, "epoch", limited)

    return holds


def test_a_seed_that_runs_out_of_memory_begins_again_with_half_the_batch(
    plan: Plan, memory_for: Callable[[int], None]
) -> None:
    planned, moments = plan(seeds=1), list[Moment]()
    batch = planned.settings.recipe.batch
    memory_for(batch // 2)
    run = planned.run(moments.append).runs[0]
    assert (run.batch, run.retry) == (batch // 2, "OutOfMemoryError: CUDA out of memory")
    assert [(m.epoch, "half the batch" in (m.notice or "")) for m in moments] == [
        (1, False),
        (1, True),
        (2, False),
    ]


def test_nothing_of_a_seed_is_left_when_the_next_one_begins(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, left = Training.__init__, []
    begun: list[weakref.ref[Training]] = []

    def noted(training: Training, *parts: Any, **options: Any) -> None:
        left.append(sum(earlier() is not None for earlier in begun))
        begun.append(weakref.ref(training))
        begin(training, *parts, **options)

    monkeypatch.setattr(Training, "__init__", noted)
    gc.disable()  # a training and its captured step refer to each other
    try:
        plan(seeds=3).run()
    finally:
        gc.enable()
    assert left == [0, 0, 0]


def test_half_the_batch_is_the_last_try(plan: Plan, memory_for: Callable[[int], None]) -> None:
    memory_for(2)
    with pytest.raises(SearchError, match="memory does not hold") as caught:
        plan().run()
    assert "half the batch" in caught.value.why
    memory_for(1 << 20)
    assert [run.batch for run in plan().run().runs] == [32, 64], "it goes on from its checkpoint"


def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    plan: Plan, tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in ({"data": None}, {"out": None}, {"epochs": 0}, {"seeds": 0}, {"seed": -1}):
        with pytest.raises(UsageError):
            plan(**changes)
    monkeypatch.setattr(full_training, "_memory", lambda: 100_000)
    with pytest.raises(SetupError, match="memory"):
        plan()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("place", ["a file", "a file/t"])
def test_a_file_where_the_folder_would_be_is_refused_at_once(
    plan: Plan, tmp_path: Path, place: str
) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UsageError, match="this is a file") as caught:
        plan(out=tmp_path / place)
    assert caught.value.fix == f"--out '{tmp_path}/a file-2'"


def test_a_network_for_other_images_is_refused(plan: Plan, dataset: Dataset) -> None:
    settings = plan().settings
    other = settings.architecture.model_copy(update={"classes": 4})
    with pytest.raises(DataError, match="does not fit"):
        full_training.check_fits(settings.model_copy(update={"architecture": other}), dataset)


def test_scores_are_means_over_seeds() -> None:
    scores = Scores.of([[[8, 2], [0, 10]], [[6, 4], [2, 8]]])
    assert scores.images == 20
    assert scores.accuracies == (0.9, 0.7)
    assert scores.mean == pytest.approx(0.8)
    assert scores.deviation == pytest.approx(np.std([0.9, 0.7], ddof=1))
    assert scores.per_class == (0.7, 0.9)
    assert scores.confusion == ((14, 6), (2, 18))
    assert scores.text == "80.00 % +- 14.14 (2 seeds)"
    assert Scores.of([[[1, 0], [0, 1]]]).text == "100.00 % (1 seed)"


def test_the_best_training_of_a_network_is_found(plan: Plan, tmp_path: Path) -> None:
    """On the study's images, then the longest, then the newest."""
    result = plan(epochs=1, seeds=1).run()
    own = result.settings.fingerprint
    for number, (fingerprint, epochs) in enumerate(
        [("f" * 12, 9), (own, 1), (own, 5), (own, 5), (own, 2)]
    ):
        folder = tmp_path / "training" / f"{result.key}-{number}"
        folder.mkdir(parents=True)
        about = result.settings.model_copy(update={"fingerprint": fingerprint, "epochs": epochs})
        when = f"2026-01-0{number + 1}T00:00:00+00:00"
        text = result.model_copy(update={"settings": about, "finished": when}).model_dump_json()
        (folder / "trained.json").write_text(text)
    found = find_trained(tmp_path, result.key, own)
    assert found is not None
    assert found[0].name.endswith("-3")
    assert find_trained(tmp_path, "0" * 12, own) is None
    (found[0] / "trained.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        find_trained(tmp_path, result.key, own)


def test_mlflow_gets_a_run_a_seed_with_names_of_its_own(plan: Plan) -> None:
    result: Trained = plan().run()
    runs = list(training_runs(result))
    assert [run.name for run in runs] == ["training, seed 1", "training, seed 2"]
    assert len({run.key for run in runs}) == 2
    assert "accuracy" not in runs[0].metrics
    assert result.test is not None
    assert runs[1].metrics["test_accuracy"].value == result.test.accuracies[1]
    assert runs[0].metrics["test_accuracy_deviation"].value == result.test.deviation
    note = runs[0].tags["mlflow.note.content"]
    for share, row in zip(result.test.per_class, result.test.confusion, strict=True):
        assert f"| {share:.1%} | {' | '.join(map(str, row))} |" in note


def test_equal_settings_have_equal_digests(plan: Plan) -> None:
    settings = plan().settings
    again = type(settings).model_validate(json.loads(settings.model_dump_json()))
    assert again == settings
    assert again.digest == settings.digest != plan(epochs=9).settings.digest
    assert parse_architecture(settings.architecture.document(), where="") == settings.architecture


def test_a_full_disk_costs_a_training_an_epoch_at_most(plan: Plan, disk: Any) -> None:
    planned, seen = plan(out=disk.folder / "t", epochs=4, seeds=1), []

    def fill(moment: Moment) -> None:
        seen.append(moment.epoch)
        if moment.epoch == 2:
            disk.fill()

    with pytest.raises(StorageError, match="the disk is full"):
        planned.run(fill)
    disk.free()
    assert planned.run(lambda moment: seen.append(moment.epoch)).runs
    assert seen == [1, 2, 3, 4]
