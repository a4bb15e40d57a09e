"""Whose weights are exported, and that short runs are never passed off as the end of training."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_logged_model_name, _validate_model_name
from safetensors.torch import save_file

from nasfuse import full_training
from nasfuse.api import ExportOptions, export, tracking_uri
from nasfuse.architecture import Architecture
from nasfuse.choosing import choose, find_network
from nasfuse.data.dataset import Dataset
from nasfuse.errors import SetupError, StorageError, UsageError
from nasfuse.exporting import origin as origins
from nasfuse.exporting.origin import origin_of_trial, with_images
from nasfuse.full_training import FullTraining
from nasfuse.network import build
from nasfuse.recipe import Recipe
from nasfuse.registering import register_model
from nasfuse.results import Result
from nasfuse.searching.study import Settings, Study
from nasfuse.space import read_space
from nasfuse.tracking import open_client
from nasfuse.trained import Trained, TrainingSettings
from nasfuse.training_plan import TrainOptions, each_finalist
from nasfuse.view import show_trained

MakeResult = Callable[..., Result]
TOP = Recipe().top


@pytest.fixture
def study(tmp_path: Path, architecture: Architecture, make_result: MakeResult) -> Study:
    """One network, fully trained, and again by the finals; and one that got a short run only."""
    settings = Settings(
        id="0123456789abcdef",
        name="a",
        space_name="default",
        space=read_space("default"),
        budget=1_000_000,
        data=str(tmp_path / "stripes"),
        side=9,
        validation=30,
        fingerprint="0" * 12,
        classes=("a", "b", "c"),
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        sampler="tpe",
        seed=3,
        tracking_uri=None,
        versions={"nasfuse": "0"},
    )
    study = Study.create(tmp_path / "studies" / "a", settings)
    about: dict[str, Any] = {"key": architecture.key, "versions": {"nasfuse": "0", "torch": "0"}}
    for rung, repeat, accuracy in ((0, 0, 0.5), (TOP, 0, 0.9), (TOP, 1, 0.8), (TOP, 2, 0.82)):
        study.record(make_result(0, rung=rung, repeat=repeat, accuracy=accuracy, **about))
    short = architecture.model_copy(update={"activation": "gelu"})
    about |= {"key": short.key, "architecture": short}
    study.record(make_result(1, rung=0, accuracy=0.4, **about))
    for network, rung in ((architecture, TOP), (short, 0)):
        folder = study.trial(network.key)
        folder.mkdir()
        tensors = {k: v.contiguous() for k, v in build(network).state_dict().items()}
        save_file(tensors, folder / f"rung{rung}.safetensors")
    return study


def trained(study: Study, dataset: Dataset) -> tuple[Path, Trained]:
    """A full training of the study's first network."""
    settings = TrainingSettings(
        study="a",
        number=0,
        architecture=choose(study, "0").architecture,
        data="sample",
        side=9,
        split_seed=0,
        skip_bad=0,
        stored=9,
        fingerprint=dataset.fingerprint,
        train=96,
        validation=30,
        classes=dataset.classes,
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        epochs=2,
        seeds=2,
        seed=0,
        all_data=False,
    )
    folder = study.folder / "training" / f"{settings.architecture.key}-{settings.digest}"
    return folder, FullTraining(settings, dataset, folder).run()


def test_a_full_run_of_the_search_says_what_it_is(study: Study) -> None:
    found = origin_of_trial(study, choose(study, "best"), "best-available")
    assert found.kind == "search"
    assert "search recipe, 1 epoch on 100%" in found.story
    assert any("81.00% +- 1.41 (2 other seeds" in line for line in found.quality)
    assert any("never measured" in line for line in found.quality)
    assert found.data == "stripes", "the name of the folder, not where it lies"


@pytest.mark.parametrize(
    "words", [{"network": "finalists"}, {"network": "a", "trial": "finalists"}]
)
def test_finalists_are_trained_each(study: Study, tmp_path: Path, words: dict[str, str]) -> None:
    options = TrainOptions(**words, studies=study.folder.parent, out=tmp_path / "t")  # type: ignore[arg-type]
    best = choose(study, "best")
    (one,) = each_finalist(options)  # the other network had a short run only
    assert (one.network, one.study, one.out) == (best.key, "a", tmp_path / "t" / best.key)
    assert each_finalist(one) == [one]


def test_weights_of_short_runs_are_refused_unless_asked_for(study: Study) -> None:
    result = choose(study, "1")
    with pytest.raises(UsageError, match="not been trained fully") as caught:
        origin_of_trial(study, result, "best-available")
    assert "nasfuse train a --trial 1" in caught.value.fix
    found = origin_of_trial(study, result, "search")
    assert found.kind == "short"
    assert "not to be used" in found.story
    assert found.weights.name == "rung0.safetensors"


def test_weights_of_the_search_that_were_changed_are_refused(study: Study) -> None:
    result = choose(study, "0")
    path = study.trial(result.key) / f"rung{TOP}.safetensors"
    content = path.read_bytes()
    whole = result.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
    assert origin_of_trial(study, whole, "search").weights == path
    path.write_bytes(content[:-1] + bytes((content[-1] ^ 0x80,)))
    with pytest.raises(StorageError, match="not those that were trained") as caught:
        origin_of_trial(study, whole, "search")
    assert caught.value.where == str(path)
    assert "nasfuse train a --trial 0" in caught.value.fix
    assert origin_of_trial(study, result, "search").weights == path, "an older study has no sums"


def test_a_full_training_goes_before_the_search(
    study: Study, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_training, "load_test", lambda source, **options: dataset.validation)
    result = choose(study, "0")
    with pytest.raises(UsageError, match="not been trained fully"):
        origin_of_trial(study, result, "trained")
    folder, done = trained(study, dataset)
    for weights in ("best-available", "trained"):
        found = origin_of_trial(study, result, weights)
        assert found.kind == "trained"
        assert found.weights == folder / f"seed{done.chosen + 1}.safetensors"
        assert done.validation is not None
        assert found.accuracy == done.validation.accuracies[done.chosen]
        assert any(line.startswith("Test accuracy") for line in found.quality)
    assert origin_of_trial(study, result, "search").kind == "search"
    with pytest.raises(UsageError, match="there are no weights 'final'"):
        origin_of_trial(study, result, "final")  # type: ignore[arg-type]
    found.weights.unlink()
    with pytest.raises(StorageError, match="gone"):
        origin_of_trial(study, result, "trained")


def test_images_that_have_changed_are_not_tried(
    study: Study, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = origin_of_trial(study, choose(study, "0"), "search")
    assert with_images(found) == (found, None), "there are no images in that folder"

    def load(source: str, **options: Any) -> Dataset:
        return dataset

    monkeypatch.setattr(origins, "load_dataset", load)
    assert with_images(found)[1] is None
    same = replace(found, fingerprint=dataset.fingerprint, side=0)
    checked, images = with_images(same)
    assert images is dataset.validation
    assert checked.side == 9


def test_an_export_downloads_no_images(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach(*_: Any, **__: Any) -> None:
        raise AssertionError("it asks the network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NASFUSE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(urllib.request, "urlopen", reach)
    found = origin_of_trial(study, choose(study, "0"), "search")
    elsewhere = replace(found, source=("cifar10", 9, 0, 0))
    assert with_images(elsewhere) == (elsewhere, None)


def test_networks_are_found_by_what_people_call_them(study: Study, tmp_path: Path) -> None:
    studies, key = study.folder.parent, choose(study, "1").key

    def number(what: str, trial: str | None = None, of: str | None = None) -> int:
        found = find_network(what, trial=trial, study=of, studies=studies)
        assert found.result is not None
        return found.result.number

    assert number("best") == number("a") == number("0") == number(str(study.folder)) == 0
    assert number("1") == number("a", "1") == number(key[:5]) == number("1", of="a") == 1
    assert number("best", "1") == 1
    file = tmp_path / "n.json"
    file.write_text(choose(study, "1").architecture.to_json())
    for name in (str(file), "resnet20"):
        assert find_network(name, trial=None, study=None, studies=studies).result is None
    for what, trial, said in (("0", "1", "two trials"), ("resnet2O", None, "resnet20")):
        with pytest.raises(UsageError) as caught:
            find_network(what, trial=trial, study=None, studies=studies)
        assert said in str(caught.value)


def test_only_what_was_trained_can_be_exported(study: Study, tmp_path: Path) -> None:
    out, studies = tmp_path / "net", study.folder.parent
    with pytest.raises(UsageError, match="no weights"):
        export(ExportOptions(out=out, network="resnet20", studies=studies))
    with pytest.raises(UsageError, match="not been trained fully"):
        export(ExportOptions(out=out, network="1", studies=studies))
    assert not out.exists()
    done = export(ExportOptions(out=out, network="a", formats="python", studies=studies))
    assert done.check.validation is None, "no images are at hand"
    assert "not at hand" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_training_is_shown_in_mlflow_and_its_export_registered(
    study: Study, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_training, "load_test", lambda source, **options: None)
    _, done = trained(study, dataset)
    for _ in range(2):  # the second time changes nothing
        assert show_trained(study, tracking_uri(study), done) is None
    client = open_client(tracking_uri(study))
    experiment = client.get_experiment_by_name("nasfuse/a")
    runs = client.search_runs([experiment.experiment_id], "tags.`nasfuse.kind` = 'training'")
    assert len(runs) == 2
    assert done.validation is not None
    accuracies = {run.data.metrics["validation_accuracy"] for run in runs}
    assert accuracies == set(done.validation.accuracies)
    options = ExportOptions(
        out=tmp_path / "net",
        network="a",
        formats="python",
        register="digits",
        studies=study.folder.parent,
    )
    exported = export(options)
    assert exported.address == "models:/digits/1"
    assert max(exported.check.differences["mlflow"].values()) == 0
    version = client.get_model_version("digits", "1")
    assert version.tags["nasfuse.weights"] == "trained"
    requirements = (tmp_path / "net" / "mlflow" / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "+" not in requirements


@pytest.mark.parametrize(
    ("name", "meant"),
    [("x/y", "x-y"), ("net.v2", "net-v2"), ("it's: 5 %", "it-s-5"), (" ", "model"), ("", "model")],
)
def test_a_name_that_mlflow_refuses_is_refused_before_the_export(
    study: Study, tmp_path: Path, name: str, meant: str
) -> None:
    options = ExportOptions(out=tmp_path / "net", network="a", studies=study.folder.parent)
    with pytest.raises(UsageError, match="cannot be the name of a model") as caught:
        export(replace(options, register=name))
    assert caught.value.fix == f"--register {meant}"
    assert not (tmp_path / "net").exists()
    _require_both(meant)
    with pytest.raises(MlflowException):
        _require_both(name)


def _require_both(name: str) -> None:
    """What MLflow asks of a registered model, and of a logged one."""
    _validate_model_name(name)
    _validate_logged_model_name(name)


def test_an_export_that_cannot_be_registered_is_said_to_be_there(
    study: Study, tmp_path: Path
) -> None:
    files, store = tmp_path / "my net" / "mlflow", tracking_uri(study)
    with pytest.raises(SetupError, match="is exported to") as caught:
        register_model(files, "digits", uri=store, identity=study.settings.id, tags={})
    assert f"to {files.parent}, and only registering it failed" in caught.value.what
    assert "has not been tracked" in caught.value.why
    assert caught.value.fix.startswith(f"--out '{files.parent}-2' ")


def test_a_server_that_is_down_does_not_stop_a_training(
    study: Study, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(full_training, "load_test", lambda source, **options: None)
    _, done = trained(study, dataset)
    (tmp_path / "taken").write_text("a file where the store would be")
    problem = show_trained(study, f"sqlite:///{tmp_path}/taken/mlflow.db", done)
    assert problem is not None
    assert "tracking store" in problem
