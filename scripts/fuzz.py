"""Damaged files by the thousand through the functions that read them: refused, or read.

    python scripts/fuzz.py [--mutants 10000] [--images 1000] [--seed 0]

Spaces, recipes, architectures, the files of a study's folder and folders of images are changed at
random. Each must be read or end in a NasfuseError within ten seconds; anything else is printed
with its bytes, and the exit status is 1. Counts go to standard output as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from nasfuse.architecture import read_architecture
from nasfuse.data.load import load_dataset
from nasfuse.errors import NasfuseError
from nasfuse.network import cost
from nasfuse.recipe import Recipe, read_recipe
from nasfuse.references import load_architecture
from nasfuse.results import Result, append_result
from nasfuse.searching.study import Settings, Study
from nasfuse.space import find_space, load_space, read_space
from nasfuse.trained import RESULT, read_trained

LIMIT = 10  # seconds for one file
PIECES = (
    b"", b"\x00", b"\xff\xfe", b"\n", b"\r\n", b"{}", b"[]", b"null", b"NaN", b"-1", b"1e999",
    b"9" * 40, b'"', b": ", b"- ", b"&a ", b"*a", b"!!python/name:os.system ", b"\t", b"\x1b[2J",
    b"\xed\xa0\x80", b"\\ud800", b"true", b"[" * 200, b"{" * 200, b"../../x",
)  # fmt: skip
Read = Callable[[Path], object]


def mutant(content: bytes, generator: random.Random) -> bytes:
    """The content with one to four changes; where it is text, often to a whole value of a line."""
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
    return cost(read_architecture(path))


def _open_study(path: Path) -> object:
    study = Study.open(path.parent)
    return study.settings.search_space, study.results


def _recover(path: Path) -> object:
    for line in Study.open(path.parent).recover():
        assert line.key
    return None


def _load_images(path: Path) -> object:
    return load_dataset(str(path.parents[2]), side=16, skip_bad=1)


def _finished(path: Path) -> object:
    return read_trained(path.parent)


def light(root: Path) -> dict[Path, Read]:
    """Small sound files of every kind, and what reads each."""
    files: dict[Path, Read] = {root / "recipe.yaml": read_recipe}
    (root / "recipe.yaml").write_text(json.dumps(Recipe().model_dump(mode="json"), indent=1))
    for name in ("resnet20", "densenet_bc_100_12"):
        network = load_architecture(name)
        (root / f"{name}.json").write_text(network.to_json(indent=1))
        files[root / f"{name}.json"] = _price
    (root / "space.yaml").write_bytes(find_space("default").read_bytes())
    files[root / "space.yaml"] = lambda path: load_space(str(path))
    files |= _study(root / "study")
    (root / "training").mkdir()
    (root / "training" / RESULT).write_text('{"schema_version": 1, "settings": {"seeds": 1}}')
    files[root / "training" / RESULT] = _finished
    return files


def _study(folder: Path) -> dict[Path, Read]:
    architecture = load_architecture("resnet20")
    price = cost(architecture)
    result = Result(
        key=architecture.key, number=0, rung=0, origin="random", status="complete",
        architecture=architecture, macs=price.macs, params=price.params, thop=price.thop,
        accuracy=0.5, loss=1.0, calibrated_loss=0.9, seconds=1.0, seed=0, data="0" * 12,
        versions={"nasfuse": "0"}, finished="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    settings = Settings(
        id="0" * 16, name="study", space_name="default", space=read_space("default"),
        budget=50_000_000, data="digits", side=16, fingerprint="0" * 12, validation=100,
        classes=("a", "b"), mean=(0.5,), std=(0.2,), recipe=Recipe(), sampler="random", seed=0,
        tracking_uri=None, versions={"nasfuse": "0"}, trials=4, seconds=None,
    )  # fmt: skip
    Study.create(folder, settings).record(result)
    path = folder / "results.jsonl"
    append_result(path, result.model_copy(update={"rung": 1}))
    return {folder / "study.yaml": _open_study, path: _recover}


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
    """Damage a file, read it, put it back; so often. Counts what was read, refused and broken."""
    sound = {path: path.read_bytes() for path in files}
    seen: Counter[str] = Counter(read=0, refused=0, broken=0)
    for read_path, read in files.items():
        if read is not _finished:
            read(read_path)  # the sound ones are read, or what follows says nothing
    for _ in range(count):
        path = generator.choice(list(files))
        content = mutant(sound[path], generator)
        path.write_bytes(content)
        try:
            with limited():
                files[path](path)
            seen["read"] += 1
        except NasfuseError:
            seen["refused"] += 1
        except Exception:
            seen["broken"] += 1
            print(f"{path.name}: {content[:2000]!r}", file=sys.stderr)
            traceback.print_exc(limit=-4)
        finally:
            path.write_bytes(sound[path])
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
