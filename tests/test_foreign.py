"""Studies from elsewhere: impossible values end in one clear error, whatever the verb."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasfuse.architecture import Architecture
from nasfuse.data.dataset import Dataset
from nasfuse.data.load import load_dataset
from nasfuse.documents import MAX_BYTES
from nasfuse.errors import StorageError
from nasfuse.recipe import Recipe
from nasfuse.results import Result, read_results
from nasfuse.searching.study import Settings, Study
from nasfuse.trained import Epoch, Scores, SeedRun, Trained, TrainingSettings, read_trained

Cli = Callable[..., subprocess.CompletedProcess[str]]
MakeResult = Callable[..., Result]
MakeSettings = Callable[..., Settings]
VERBS = ("status", "front", "show best --study", "explain", "sync", "resume --trials 1")
NAN, INF = float("nan"), float("inf")
RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a number that nobody reached": ({"number": 10**9}, "number"),
    "a number below 0": ({"number": -1}, "number"),
    "a rung above the recipe's": ({"rung": 99}, "rung 99"),
    "a rung below 0": ({"rung": -1}, "rung"),
    "a repeat below 0": ({"repeat": -1}, "repeat"),
    "no MACs": ({"macs": 0}, "macs"),
    "MACs below 0": ({"macs": -5}, "macs"),
    "more MACs than a float": ({"macs": 10**400}, "macs"),
    "parameters below 0": ({"params": -1}, "params"),
    "thop below 0": ({"thop": -1}, "thop"),
    "complete without accuracy": ({"accuracy": None}, "accuracy"),
    "failed with accuracy": ({"status": "failed", "cause": "x"}, "accuracy"),
    "failed without a cause": ({"status": "failed", "accuracy": None}, "cause"),
    "an accuracy that is no number": ({"accuracy": NAN}, "accuracy"),
    "an accuracy above 1": ({"accuracy": 7}, "accuracy"),
    "an endless loss": ({"loss": INF}, "loss"),
    "no loss to judge by": ({"calibrated_loss": None}, "calibrated_loss"),
    "seconds that are no number": ({"seconds": NAN}, "seconds"),
    "seconds below 0": ({"seconds": -3}, "seconds"),
    "a latency of 0": ({"latency": 0}, "latency"),
    "no latency where that counts": ({"objective": "latency"}, "latency"),
    "a time that is none": ({"finished": "x"}, "finished"),
    "a time of the year 1": ({"finished": "0001-01-01T00:00:00"}, "finished"),
    "a time at the end of time": ({"finished": "9999-12-31T23:59:59-12:00"}, "finished"),
    "half a letter": ({"origin": "\ud800"}, "escape"),
    "too long a line": ({"origin": "x" * MAX_BYTES}, "longer"),
}
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no budget": ({"budget": 0}, "budget"),
    "a budget below 0": ({"budget": -1}, "budget"),
    "a budget beyond all": ({"budget": 10**400}, "budget"),
    "a seed below 0": ({"seed": -1}, "seed"),
    "a huge seed": ({"seed": 1e30}, "seed"),
    "a front from 0": ({"front_from": 0}, "front_from"),
    "a front above the budget": ({"front_from": 10**12}, "front_from"),
    "a quote in the id": ({"id": "a'b"}, "id"),
    "no validation images": ({"validation": 0}, "validation"),
    "no classes": ({"classes": []}, "classes"),
    "images without channels": ({"mean": [], "std": []}, "mean"),
    "means and deviations of different images": ({"std": [0.5, 0.5]}, "mean has 1"),
    "no deviation": ({"std": [0.0]}, "std"),
    "an endless mean": ({"mean": [INF]}, "mean"),
    "no time": ({"seconds": 0}, "seconds"),
    "endless time": ({"seconds": INF}, "seconds"),
    "no trials": ({"trials": 0}, "trials"),
    "workers below 0": ({"workers": -1}, "workers"),
    "a limit that is no number": ({"max_latency": NAN}, "max_latency"),
    "bad images below 0": ({"skip_bad": -1}, "skip_bad"),
    "a name that is a path": ({"name": "../x"}, "name"),
    "a rate without end": ({"recipe": {"rate": INF}}, "recipe.rate"),
    "epochs without end": (
        {"recipe": {"rungs": [{"share": 1, "epochs": 10**400}, {"share": 1, "epochs": 1}]}},
        "epochs",
    ),
    "a share that is nothing": (
        {"recipe": {"rungs": [{"share": 5e-324, "epochs": 1}, {"share": 1, "epochs": 1}]}},
        "share",
    ),
}


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_dataset("sample", side=64, seed=3, skip_bad=0)


@pytest.fixture
def study(
    tmp_path: Path, sample: Dataset, make_settings: MakeSettings, make_result: MakeResult
) -> Study:
    """Two networks on the sample, so that a resumed search reads them."""
    settings = make_settings(fingerprint=sample.fingerprint, classes=sample.classes)
    made = Study.create(tmp_path / "studies" / "a", settings)
    made.record(make_result(0))
    made.record(make_result(1, accuracy=0.6, macs=900_000))
    return made


def refused(cli: Cli, study: Study, *said: str) -> None:
    """Each verb ends in the same four lines and the exit code of damaged files."""
    for verb in VERBS:
        run = cli(*verb.split(), "a", cwd=study.folder.parents[1])
        assert run.returncode == 8, (verb, run.stdout, run.stderr)
        assert run.stderr.startswith("error[NF800]: this "), verb
        assert not [word for word in said if word not in run.stderr], (verb, run.stderr)
        assert len(run.stderr) < 1500


@pytest.mark.parametrize("name", RESULTS)
def test_impossible_results_are_refused_by_every_verb(cli: Cli, study: Study, name: str) -> None:
    changes, said = RESULTS[name]
    path = study.folder / "results.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), **changes})}\n")
    refused(cli, study, "this result is damaged", "results.jsonl, line 2", said)


@pytest.mark.parametrize("name", SETTINGS)
def test_impossible_settings_are_refused_by_every_verb(cli: Cli, study: Study, name: str) -> None:
    changes, said = SETTINGS[name]
    path = study.folder / "study.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    refused(cli, study, "settings are damaged", "study.yaml", said)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("references",), "all-add"),
        (("references", "all-add"), "add"),
        (("stages", 0, "depth"), {"int": [1, 10**12]}),
        (("stages",), []),
        (("scaling", "alpha"), "x"),
    ],
)
def test_an_impossible_space_is_refused(
    cli: Cli, study: Study, path: tuple[Any, ...], value: Any
) -> None:
    """It is needed for going on only."""
    document = yaml.safe_load((study.folder / "study.yaml").read_text())
    place = document["space"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (study.folder / "study.yaml").write_text(yaml.safe_dump(document))
    assert cli("front", "a", cwd=study.folder.parents[1]).returncode == 0
    run = cli("resume", "a", "--trials", "1", cwd=study.folder.parents[1])
    assert run.returncode == 8, run.stderr
    assert "study.yaml, space: " in run.stderr


def test_what_a_worker_left_is_refused_as_well(cli: Cli, study: Study) -> None:
    document = json.loads((study.folder / "results.jsonl").read_text().splitlines()[0])
    path = study.folder / "trials" / "x" / "rung1.json"
    path.parent.mkdir()
    for text, said in ((json.dumps({**document, "rung": 99}), "rung 99"), ("1" * 2**21, "longer")):
        path.write_text(text)
        for verb in ("sync", "resume"):
            run = cli(verb, "a", cwd=study.folder.parents[1])
            assert run.returncode == 8
            assert "rung1.json" in run.stderr
            assert said in run.stderr


def test_a_gap_that_no_search_leaves_is_refused(cli: Cli, study: Study) -> None:
    """A search would add a row to its database for each number that is missing."""
    with (study.folder / "results.jsonl").open("a") as file:
        line = json.dumps({**json.loads(study.results[0].model_dump_json()), "number": 900_000})
        file.write(line.replace('"key": "0', '"key": "f') + "\n")
    assert cli("front", "a", cwd=study.folder.parents[1]).returncode == 0
    run = cli("resume", "a", cwd=study.folder.parents[1])
    assert run.returncode == 8
    assert "results.jsonl, trial 900000" in run.stderr


def test_older_studies_are_read_without_a_calibrated_loss(
    study: Study, make_result: MakeResult
) -> None:
    path = study.folder / "study.yaml"
    path.write_text(path.read_text().replace("version: 2\n", ""))
    study.record(make_result(2, calibrated_loss=None))
    assert len(Study.open(study.folder).results) == 3
    with pytest.raises(StorageError, match="calibrated_loss"):
        _ = study.results


def test_lines_without_end_are_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "results.jsonl").open("wb") as file:
        file.truncate(2**36)  # 64 GB of nothing, which take no place on the disk
    with pytest.raises(StorageError, match="longer than"):
        read_results(tmp_path / "results.jsonl")


CLEAR = "\x1b[2J\x9b2J\u202e"


@pytest.mark.parametrize("verb", ["status", "front", "front --csv", "show 1 --study"])
def test_what_a_terminal_would_act_upon_is_not_printed(
    cli: Cli, study: Study, make_result: MakeResult, verb: str
) -> None:
    path = study.folder / "study.yaml"
    document = yaml.safe_load(path.read_text())
    changes = dict.fromkeys(("data", "name", "space_name", "sampler"), f"x{CLEAR}")
    path.write_text(yaml.safe_dump({**document, **changes}))
    study.record(make_result(1, rung=2, origin=f"x{CLEAR}"))
    failed = {"status": "failed", "accuracy": None, "cause": f"x{CLEAR}"}
    study.record(make_result(2, **failed))
    run = cli(*verb.split(), "a", cwd=study.folder.parents[1])
    assert run.returncode == 0
    assert "x?[2J" in run.stdout
    assert not set(CLEAR) - set("[2J") & set(run.stdout)


def test_what_a_terminal_would_act_upon_is_not_in_errors(cli: Cli, study: Study) -> None:
    study.folder.rename(study.folder.parent / f"x{CLEAR}")
    run = cli("status", "y", cwd=study.folder.parents[1])
    assert run.returncode == 2
    assert "the studies here are x?[2J?2J?" in run.stderr
    assert not set(CLEAR) - set("[2J") & set(run.stderr)


TRAINED: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "weights elsewhere": (("runs", 0, "weights"), "../../x.safetensors", "weights"),
    "weights anywhere": (("runs", 0, "weights"), "/x.safetensors", "weights"),
    "weights of an endless name": (("runs", 0, "weights"), "x" * 300, "weights"),
    "a run that is not there": (("chosen",), 2, "run 2 is chosen of 2"),
    "a run before the first": (("chosen",), -1, "chosen"),
    "no epochs": (("runs", 0, "epochs"), [], "epochs"),
    "scores of one run": (("validation", "accuracies"), [0.5], "scores"),
    "classes that are not named": (("validation", "confusion"), [[1, 0], [0, 1]], "scores"),
    "an accuracy above 1": (("validation", "accuracies", 0), 2.0, "accuracies"),
    "a mean that is no number": (("validation", "mean"), NAN, "mean"),
    "no MACs": (("macs",), 0, "macs"),
    "a time that is none": (("finished",), "x", "finished"),
    "seconds below 0": (("runs", 1, "seconds"), -1, "seconds"),
}


@pytest.fixture
def trained(architecture: Architecture, sample: Dataset) -> Trained:
    """A full training with two seeds, on paper."""
    settings = TrainingSettings(
        study="a",
        number=0,
        architecture=architecture,
        data="sample",
        side=64,
        split_seed=3,
        skip_bad=0,
        stored=28,
        fingerprint=sample.fingerprint,
        train=96,
        validation=30,
        classes=("a", "b", "c"),
        mean=(0.5,),
        std=(0.25,),
        recipe=Recipe(),
        epochs=1,
        seeds=2,
        seed=0,
        all_data=False,
    )
    epochs = (Epoch(loss=1.0, accuracy=0.5),)
    run = SeedRun(seed=0, weights="seed1.safetensors", seconds=1.0, epochs=epochs)
    return Trained(
        settings=settings,
        macs=1,
        params=1,
        thop=1,
        runs=(run, run.model_copy(update={"seed": 1, "weights": "seed2.safetensors"})),
        chosen=1,
        validation=Scores.of([[[9, 1, 0], [0, 10, 0], [5, 0, 5]]] * 2),
        test=None,
        versions={"nasfuse": "0"},
        finished="2026-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize("name", TRAINED)
def test_impossible_trainings_are_refused(
    cli: Cli, study: Study, trained: Trained, name: str
) -> None:
    path, value, said = TRAINED[name]
    folder = study.folder / "training" / f"{'0' * 12}-{trained.settings.digest}"
    folder.mkdir(parents=True)
    document = json.loads(trained.model_dump_json())
    (folder / "trained.json").write_text(json.dumps(document))
    assert read_trained(folder) == trained
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (folder / "trained.json").write_text(json.dumps(document))
    for words in (["0", "--study", "a"], [str(folder)]):
        run = cli("export", *words, "--out", "net", cwd=study.folder.parents[1])
        assert run.returncode == 8, run.stderr
        assert "the result of this training is damaged" in run.stderr
        assert said in run.stderr
    with (folder / "trained.json").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(StorageError, match="larger than 100 MB"):
        read_trained(folder)


@pytest.mark.parametrize(
    "words",
    [
        ["show", "99", "--study"],
        ["export", "0", "--out", "net", "--study"],
        ["resume"],
        ["search", "--budget", "1MMACs", "--name"],
    ],
)
def test_commands_that_mend_can_be_pasted(cli: Cli, study: Study, words: list[str]) -> None:
    """Whatever a study is called, and says of itself."""
    name = "a; touch b"
    folder = study.folder.rename(study.folder.parent / name)
    path = folder / "study.yaml"
    changes = {"name": name, "data": "module:function"}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    run = cli(*words, name, cwd=folder.parents[1])
    fix = run.stderr.rpartition("fix:")[2]
    assert any(word.endswith(name) for word in shlex.split(fix)), "whole, maybe in its folder"
