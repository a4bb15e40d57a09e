"""Damaged files by the thousand through the functions that read and use them: refused, or used.

    python scripts/fuzz.py [--mutants 10000] [--images 1000] [--seed 0]

Spaces, recipes, architectures, the files of a study's folder and folders of images are changed at
random: half of the documents in their bytes, the others in values, which mostly can be read, and
then go through what the verbs are made of. Each must be used or end in a NasfuseError within ten
seconds; anything else is printed with its bytes, and the exit status is 1. Counts go to standard
output as JSON.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from nasfuse.api import Finished
from nasfuse.architecture import read_architecture
from nasfuse.checkpoints import load_checkpoint, save_checkpoint
from nasfuse.choosing import choose
from nasfuse.comparison import beside
from nasfuse.data.load import load_dataset
from nasfuse.errors import BudgetError, NasfuseError
from nasfuse.explaining import explained
from nasfuse.exporting.origin import origin_of_training, origin_of_trial
from nasfuse.exporting.verification import trained_network
from nasfuse.network import build, cost, thop_macs
from nasfuse.page import page
from nasfuse.planning import continuation
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.references import load_architecture
from nasfuse.results import Result, result_front
from nasfuse.scaling import fit_to_budget
from nasfuse.screens import front_document, print_trial
from nasfuse.searching.limits import Limits
from nasfuse.searching.proposing import Bounds, Proposer
from nasfuse.searching.rungs import Ladder
from nasfuse.searching.schedule import Progress, Schedule
from nasfuse.searching.storage import storage_of
from nasfuse.searching.study import Settings, Study
from nasfuse.space import find_space, load_space, read_space
from nasfuse.standing import stand, stand_document, stand_lines
from nasfuse.summary import front_rows, summarise
from nasfuse.tables import csv_table, markdown_table
from nasfuse.terminal import clock, front_table, plan_lines, rung_text, status_line
from nasfuse.trained import RESULT, Epoch, Scores, SeedRun, Trained, TrainingSettings, read_trained
from nasfuse.training_screen import print_trained
from nasfuse.trial_runs import training_runs, trial_runs

LIMIT = 10  # seconds for one file
PIECES = (
    b"", b"\x00", b"\xff\xfe", b"\n", b"\r\n", b"{}", b"[]", b"null", b"NaN", b"-1", b"1e999",
    b"9" * 40, b'"', b": ", b"- ", b"&a ", b"*a", b"!!python/name:os.system ", b"\t", b"\x1b[2J",
    b"\xed\xa0\x80", b"\\ud800", b"true", b"[" * 200, b"{" * 200, b"../../x",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 99, 10**6, 10**9, 2**31, 10**19, 10**400, 0.5, -0.0, 1e-300, 5e-324,
           1e308, math.nan, math.inf, -math.inf)  # fmt: skip
WORDS = ("", " ", "x", "..", "../x", "/x", "0", "\x1b[2J", "\ud800", "a'b", '"', "<b>", "\n",
         "x" * 5000, "NaN", "complete", "failed", "latency", "params", "random", "all-add",
         "0001-01-01", "9999-12-31T23:59:59-12:00", "2026-01-01", "f" * 12, "add")  # fmt: skip
DOCUMENTS = (".json", ".jsonl", ".yaml")
Read = Callable[[Path], object]


def mutant(path: Path, content: bytes, generator: random.Random) -> bytes:
    """The content changed; where it is a document, half of the time in its values."""
    if path.suffix in DOCUMENTS and generator.random() < 0.5:
        return _other_values(path, content, generator)
    return _other_bytes(content, generator)


def _other_values(path: Path, content: bytes, generator: random.Random) -> bytes:
    """One or two values changed; of many lines in one of them."""
    if path.suffix == ".yaml":
        document = yaml.safe_load(content)
        _change(document, generator)
        return yaml.safe_dump(document, sort_keys=False).encode(errors="surrogatepass")
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    chosen = generator.randrange(len(lines))
    document = json.loads(lines[chosen])
    _change(document, generator)
    lines[chosen] = json.dumps(document).encode()
    return b"\n".join([*lines, b""])


def _change(document: Any, generator: random.Random) -> None:
    for _ in range(generator.choice((1, 1, 1, 2))):
        container, key = _place(document, generator)
        if isinstance(container, dict) and generator.random() < 0.1:
            del container[key]
        else:
            container[key] = _other(container[key], _alike(document, container[key]), generator)


def _place(document: Any, generator: random.Random) -> tuple[Any, Any]:
    """A container with one of its keys; what lies deep is no more likely for being a lot."""
    container = document
    while True:
        key = generator.choice(
            list(container) if isinstance(container, dict) else range(len(container))
        )
        inner = container[key]
        if not inner or not isinstance(inner, dict | list) or generator.random() < 0.2:
            return container, key
        container = inner


def _alike(document: Any, value: Any) -> list[Any]:
    """The values of the same kind that the document has elsewhere: with those most can be read."""
    found = (container[key] for container, key in _places(document))
    return [one for one in found if type(one) is type(value) and one != value]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _other(value: Any, alike: list[Any], generator: random.Random) -> Any:
    """Something else in the place of a value, mostly of its kind."""
    if alike and generator.random() < 0.4:
        return copy.deepcopy(generator.choice(alike))
    match value:
        case bool() | None:
            return generator.choice((None, True, False, 0, 1, "x"))
        case int() | float():
            near = (2 * value, value + 1, abs(value - 1), value // 2, value * value)
            return generator.choice(generator.choice((NUMBERS, near, near, (None, "1", -value))))
        case str():
            return generator.choice((*WORDS, value + "x", None, 1))
        case list():
            return generator.choice((value[:-1], value[1:], 2 * value, value[::-1], [], value[:1]))
    return generator.choice(({}, None, [], {**value, "x": 1}))


def _other_bytes(content: bytes, generator: random.Random) -> bytes:
    """One to four changes; where it is text, often to a whole value of a line."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4))):
        start = generator.randrange(len(changed) + 1)
        piece = generator.choice((*PIECES, bytes(changed[start : start + 40])))
        match generator.randrange(5):
            case 0:
                changed[start : start + generator.choice((0, 1, 8, 60))] = piece
            case 1:
                del changed[start:]
            case 2:
                changed[start : start + 1] = bytes([generator.randrange(256)])
            case _:  # what stands between a colon and the end of its value
                begin = changed.find(b":", start) + 1
                ends = (changed.find(sign, begin) for sign in (b",", b"\n", b"}"))
                end = min((place for place in ends if place >= 0), default=len(changed))
                changed[begin:end] = b" " + piece
    return bytes(changed)


def _price(path: Path) -> object:
    network = read_architecture(path)
    assert read_architecture(path).key == network.key
    return cost(network), thop_macs(network)


def _use_space(path: Path) -> object:
    space = load_space(str(path)).for_images(channels=1, classes=10)
    for name in list(space.references)[:2]:
        space.reference(name)
    found = space.sample(0)
    return space.size, space.fusions, fit_to_budget(found.architecture, found.scaling, 50_000_000)


def _use_recipe(path: Path) -> object:
    recipe = read_recipe(path)
    for one in (recipe, recipe.for_images(2000), recipe.with_epochs(20), recipe.halved()):
        for rung, asked in enumerate(one.rungs):
            assert rung_text(asked)
            assert one.at(rung).batch > 1
            assert one.work(rung) > 0
        assert len(Ladder(one, budget=10**6).shares) == len(one.rungs)
    return None


def _use_study(path: Path) -> object:
    """What status, front, show, sync, explain, export and resume are made of."""
    study = Study.open(path.parent)
    results = study.recover()
    for verb in (_look, _show, _write_page, _go_on):
        with suppress(NasfuseError):  # of one that the others do not depend on
            verb(study, results)
    return None


def _look(study: Study, results: list[Result]) -> None:
    standing, console = stand(study), Console(file=io.StringIO(), width=100)
    for line in stand_lines(standing):
        console.print(line, markup=False)
    rows, front = front_rows(results), result_front(results)
    json.dumps([stand_document(standing), front_document(study, front)])
    assert csv_table(rows) + markdown_table(rows)
    console.print(front_table(front))
    assert list(trial_runs(results, study.settings.recipe.top))


def _show(study: Study, results: list[Result]) -> None:
    del results
    best, console = choose(study, "best"), Console(file=io.StringIO(), width=100)
    print_trial(console, study, best)
    trained_network(origin_of_trial(study, best, "search"))


def _write_page(study: Study, results: list[Result]) -> None:
    settings = study.settings
    summary = summarise(results, budget=settings.budget, validation=settings.validation)
    page(results, summary, settings.name, beside(study)).encode()
    explained(study, results)


def _go_on(study: Study, results: list[Result]) -> None:
    """As a resumed search begins: the first jobs, and whether more is to come."""
    study.require_resumable()
    settings = study.settings
    space = settings.search_space
    assert plan_lines(settings, "x", size=space.size, train=1000)
    limits, resources = continuation(
        settings,
        limits=Limits(None, None),
        workers=None,
        gpus_per_trial=None,
        ray_address=None,
    )
    bounds = Bounds(settings.max_params, settings.front_from)
    proposer = Proposer(
        storage_of(study),
        space,
        budget=settings.budget,
        sampler=settings.sampler,
        seed=settings.seed,
        bounds=bounds,
    )
    proposer.catch_up(results)
    progress = Progress(study, limits, results)
    schedule = Schedule(progress, proposer, resources.workers or 1)
    for _ in range(2):
        schedule.next()
    schedule.keep()
    assert status_line(progress)
    assert schedule.finished in (True, False)


def _use_trained(path: Path) -> object:
    """What export and sync do with it, and what train says of it."""
    trained = read_trained(path.parent)
    console = Console(file=io.StringIO(), width=100)
    print_trained(console, Finished(trained, path.parent, None))
    assert list(training_runs(trained))
    assert clock(sum(run.seconds for run in trained.runs))
    return trained_network(origin_of_training(path.parent, trained))


def _use_weights(path: Path) -> object:
    return trained_network(origin_of_training(path.parent, read_trained(path.parent)))


def _load_images(path: Path) -> object:
    return load_dataset(str(path.parents[2]), side=16, skip_bad=1)


def _load_arrays(path: Path) -> object:
    return load_dataset(str(path), side=16)


def light(root: Path) -> dict[Path, Read]:
    """Small sound files of every kind, and what uses each."""
    files: dict[Path, Read] = {root / "recipe.yaml": _use_recipe}
    (root / "recipe.yaml").write_text(json.dumps(Recipe().model_dump(mode="json"), indent=1))
    for name in ("resnet20", "densenet_bc_100_12"):
        network = load_architecture(name)
        (root / f"{name}.json").write_text(network.to_json(indent=1))
        files[root / f"{name}.json"] = _price
    (root / "space.yaml").write_bytes(find_space("default").read_bytes())
    files[root / "space.yaml"] = _use_space
    save_checkpoint(root / "rung1.ckpt", {"weights": torch.zeros(40), "rung": 1})
    files[root / "rung1.ckpt"] = load_checkpoint
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    np.savez(root / "images.npz", images=images, labels=np.arange(40) % 2)
    files[root / "images.npz"] = _load_arrays
    return {**files, **_study(root / "study"), **_training(root / "training")}


def _results() -> Iterator[Result]:
    """Two networks on every rung, one of them hand-made, trained again; and one that failed."""
    recipe = Recipe()
    for number, origin in enumerate(("all-add", "tpe", "tpe")):
        network = load_architecture("resnet20").model_copy(update={"resolution": 16 + number})
        price, failed = cost(network), number == 2
        steps = [(0, 0)] if failed else [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
        for rung, repeat in steps:
            yield Result(
                key=network.key, number=number, rung=rung, repeat=repeat, origin=origin,
                status="failed" if failed else "complete", architecture=network, macs=price.macs,
                params=price.params, thop=price.thop, seconds=1.0, seed=0, data="0" * 12,
                accuracy=None if failed else 0.5 + number / 10 + repeat / 100, batch=32,
                loss=None if failed else 1.0, calibrated_loss=None if failed else 0.9,
                cause="out of memory" if failed else None, latency=2.5, cpu_seconds=1.0,
                versions={"nasfuse": "0"}, finished="2026-01-01T00:00:00+00:00",
            )  # fmt: skip
            assert rung <= recipe.top


def _study(folder: Path) -> dict[Path, Read]:
    settings = Settings(
        id="0" * 16, name="study", space_name="default", space=read_space("default"),
        budget=50_000_000, data="digits", side=16, fingerprint="0" * 12, validation=100,
        classes=("a", "b"), mean=(0.5,), std=(0.2,), recipe=Recipe(), sampler="random", seed=0,
        tracking_uri=None, versions={"nasfuse": "0"}, trials=4, seconds=None,
        front_from=1_000_000, max_params=10_000_000,
    )  # fmt: skip
    study = Study.create(folder, settings)
    for result in _results():
        study.record(result)
    left = study.trial(result.key) / "rung0.json"
    left.parent.mkdir()
    left.write_text(result.model_copy(update={"repeat": 1}).model_dump_json(exclude_none=True))
    best = next(one for one in _results() if one.number == 1)
    weights = study.trial(best.key) / "rung2.safetensors"
    weights.parent.mkdir()
    save_file(build(best.architecture).state_dict(), weights)
    _use_study(folder / "study.yaml")  # which makes the database
    names = ("study.yaml", "results.jsonl", "study.db")
    return {**{folder / name: _use_study for name in names}, left: _use_left}


def _use_left(path: Path) -> object:
    return _use_study(path.parents[2] / "study.yaml")


def _training(folder: Path) -> dict[Path, Read]:
    """A full training with two seeds, on paper but for its weights."""
    folder.mkdir()
    network = load_architecture("resnet20").model_copy(update={"resolution": 16})
    price, names = cost(network), tuple("abcdefghij")
    settings = TrainingSettings(
        study="study", number=1, architecture=network, data="digits", side=16, split_seed=0,
        skip_bad=0, stored=16, fingerprint="0" * 12, train=100, validation=20, classes=names,
        mean=(0.5,) * 3, std=(0.2,) * 3, recipe=Recipe(), epochs=1, seeds=2, seed=0,
        all_data=False,
    )  # fmt: skip
    runs = tuple(
        SeedRun(
            seed=seed,
            weights=f"seed{seed + 1}.safetensors",
            seconds=2.0,
            epochs=(Epoch(loss=1.0, accuracy=0.5),),
        )
        for seed in range(2)
    )
    confusion = np.eye(10, dtype=int).tolist()
    scores = Scores.of([confusion, confusion])
    trained = Trained(
        settings=settings, macs=price.macs, params=price.params, thop=price.thop, runs=runs,
        chosen=0, validation=scores, test=scores, versions={"nasfuse": "0"},
        finished="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    (folder / RESULT).write_text(trained.model_dump_json(indent=1))
    for run in runs:
        save_file(build(network).state_dict(), folder / run.weights)
    return {folder / RESULT: _use_trained, folder / runs[0].weights: _use_weights}


def images(root: Path) -> dict[Path, Read]:
    """A folder of photographs of two classes, of which one file of every kind gets damaged."""
    values = np.random.default_rng(0).integers(0, 255, (24, 28, 3), np.uint8)
    for number, suffix in enumerate(("png", "jpg", "webp", "bmp", "gif", "png") * 2):
        path = root / ("train", "val")[number % 2] / "ab"[number // 2 % 2] / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(values, number, axis=0)).save(path)
    return dict.fromkeys(sorted(root.rglob("*.*")), _load_images)


@contextmanager
def limited() -> Iterator[None]:
    """What takes too long ends with an error."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(files: Mapping[Path, Read], count: int, generator: random.Random) -> Counter[str]:
    """Damage a file, use it, put it back; so often. Counts what was used, refused and broken."""
    sound = {path: path.read_bytes() for path in files}
    seen: Counter[str] = Counter(read=0, refused=0, broken=0)
    for path, use in files.items():
        use(path)  # the sound ones are used, or what follows says nothing
    weights = [5 if path.suffix in DOCUMENTS else 1 for path in files]  # others have a checksum
    for path in generator.choices(list(files), weights, k=count):
        content = mutant(path, sound[path], generator)
        path.write_bytes(content)
        try:
            with limited():
                files[path](path)
            seen["read"] += 1
        except BudgetError:  # of a space or study that was read
            seen["read"] += 1
        except NasfuseError:
            seen["refused"] += 1
        except Exception:
            seen["broken"] += 1
            print(f"{path.name}: {content[:3000]!r}", file=sys.stderr)
            traceback.print_exc(limit=-4)
        finally:
            for changed, before in sound.items():  # a study takes in what it finds
                changed.write_bytes(before)
    return seen


def _too_long(number: int, frame: object) -> None:
    del number, frame
    raise TimeoutError(f"not read within {LIMIT} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        documents = attack(light(Path(folder)), asked.mutants, generator)
        photographs = attack(images(Path(folder) / "images"), asked.images, generator)
    print(json.dumps({"documents": documents, "images": photographs}))
    sys.exit(1 if documents["broken"] or photographs["broken"] else 0)


if __name__ == "__main__":
    main()
