"""Exports: files that stand alone, are checked before they exist, and carry nothing hostile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from nasfuse.architecture import Architecture
from nasfuse.data.batches import Images, Normalisation
from nasfuse.data.dataset import Dataset
from nasfuse.data.decoding import decode
from nasfuse.errors import ExportError, SetupError, StorageError, UsageError
from nasfuse.exporting import formats, verification
from nasfuse.exporting.bundle import LOCK, export_network
from nasfuse.exporting.formats import FORMATS, parse_formats
from nasfuse.exporting.origin import Origin
from nasfuse.exporting.source import module_source
from nasfuse.exporting.verification import TOLERANCES
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.training import Training

pytestmark = pytest.mark.slow
Randomised = Callable[[Architecture], torch.nn.Module]
HEAVY = {"openvino": ("model.xml", "model.bin"), "executorch": ("model.pte",)}  # and their files
HOSTILE = ('"""', "it's", "\\", "a\nb", "{}", "<script>", "naïve ☃", "');import os;('", "\x1b[2J|")


@pytest.fixture
def origin(tmp_path: Path, architecture: Architecture, randomised: Randomised) -> Origin:
    path = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in randomised(architecture).state_dict().items()}, path)
    return Origin(
        architecture=architecture,
        weights=path,
        kind="search",
        story="Weights that nobody trained.",
        quality=("Test accuracy: never measured.",),
        accuracy=None,
        classes=("a", "b", "c"),
        mean=(0.25,),
        std=(0.5,),
        side=9,
        source=("stripes", 9, 0, 0),
        data="stripes",
        fingerprint="0" * 12,
        recipe=Recipe(),
        epochs=1,
        seed=0,
        versions={"nasfuse": "0", "torch": "0"},
    )


def installed(name: str) -> bool:
    return all(find_spec(module) for module in FORMATS[name].modules)


def isolated(code: str, folder: Path) -> str:
    """What Python prints in the folder, without this checkout."""
    command = [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, '.')\n{code}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_exported_files_stand_alone(tmp_path: Path, origin: Origin, dataset: Dataset) -> None:
    out, architecture = tmp_path / "a folder" / "net", origin.architecture
    check = export_network(origin, out, validation=dataset.validation, latency=True)
    assert set(check.differences["python"].values()) == {0.0}
    assert max(check.differences["onnx"].values()) <= 1e-5
    assert set(check.differences["onnx"]) == {1, 2, 7}
    assert (check.macs, check.params) == cost(architecture)[:2]
    assert check.validation is not None
    assert check.validation.images == 30
    assert set(check.validation.shares) == {"trained", "python", "onnx"}
    assert len(set(check.validation.shares.values())) == 1
    files = {"architecture.json", "model.py", "model.safetensors", "model.onnx"}
    assert {p.name for p in out.iterdir()} == files | {"README.md", "verify.json"}
    assert load_file(out / "model.safetensors").keys() == load_file(origin.weights).keys()
    assert json.loads((out / "architecture.json").read_text()) == architecture.document()
    assert json.loads((out / "verify.json").read_text()) == check.document()
    card = (out / "README.md").read_text()
    for words in ("parameters", "FLOPs", "Weights that nobody trained", "90th percentile"):
        assert words in card
    printed = isolated(
        "import torch, model\n"
        "images = torch.zeros(2, 1, 9, 9, dtype=torch.uint8)\n"
        "print(tuple(model.load()(model.normalise(images)).shape), model.CLASSES)\n"
        "assert not {'nasfuse', 'safetensors', 'numpy', 'PIL'} & set(sys.modules) - {'numpy'}",
        out,
    )
    assert printed.strip() == "(2, 3) ('a', 'b', 'c')"
    for path in out.rglob("*"):
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"/nasfuse/" not in path.read_bytes()


def test_it_runs_on_a_photo_with_the_search_s_own_preprocessing(
    tmp_path: Path, origin: Origin
) -> None:
    out = tmp_path / "net"
    export_network(origin, out, ("python",))
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.jpg", quality=90)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "c.png")
    deep = pixels[..., 0].astype(np.uint16) * 257 - 3 * (pixels[..., 0] > 0)
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "d.png")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels[..., :3]).save(tmp_path / "e.jpg", exif=turned)
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.png", "d.png", "e.jpg")]
    expected: dict[int, Any] = {}
    assert not decode(paths, expected.__setitem__, side=9, grey=True).reasons
    code = "import model\nfor p in {}: print(model.read_image(p).flatten().tolist())"
    lines = isolated(code.format([str(path) for path in paths]), out).splitlines()
    for number, line in enumerate(lines):
        assert json.loads(line) == expected[number].flatten().tolist()
    run = subprocess.run(
        [sys.executable, "-I", str(out / "model.py"), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(run.stdout.splitlines()) == len(paths)
    assert "'a'" in run.stdout
    command = [sys.executable, "-I", str(out / "model.py"), str(out / "model.py")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "cannot identify" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_every_format_answers_alike_and_twice_the_same(
    tmp_path: Path, origin: Origin, dataset: Dataset
) -> None:
    possible = tuple(name for name in FORMATS if name not in HEAVY and installed(name))
    for name in ("one", "two/elsewhere"):
        check = export_network(origin, tmp_path / name, possible, validation=dataset.validation)
        assert check.formats == possible
        assert check.validation is not None
        assert set(check.validation.shares) == {"trained", *possible}
        for exact in ("python", "pt2", "hf"):
            assert max(check.differences[exact].values()) == 0
    for path in (tmp_path / "one").rglob("*"):
        other = tmp_path / "two/elsewhere" / path.relative_to(tmp_path / "one")
        # MLflow writes the time into its files
        assert path.is_dir() or "mlflow" in str(path) or path.read_bytes() == other.read_bytes(), (
            path.name
        )


@pytest.mark.parametrize("name", HEAVY)
def test_runtimes_of_their_own_answer_alike_and_twice_the_same(
    tmp_path: Path, origin: Origin, name: str
) -> None:
    """For any batch, without this machine's folders; each is an extra."""
    if not installed(name):
        pytest.skip(f"needs pip install 'nasfuse[{name}]'")
    for folder in ("one", "two"):
        check = export_network(origin, tmp_path / folder, (name,), latency=True)
        assert set(check.differences[name]) == {1, 2, 7}
        assert max(check.differences[name].values()) <= TOLERANCES[name]
        assert check.latency[name]["median"] > 0
    files = {path.name for path in (tmp_path / "one").glob("model.*")} - {"model.py"}
    assert files == {"model.safetensors", *HEAVY[name]}
    for file in HEAVY[name]:
        written = (tmp_path / "one" / file).read_bytes()
        assert written == (tmp_path / "two" / file).read_bytes()
        for words in (str(tmp_path), tempfile.gettempdir() + "/", str(Path(torch.__file__).parent)):
            assert words.encode() not in written
        assert file in (tmp_path / "one" / "README.md").read_text()


def test_an_export_never_replaces_files(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not empty"):
        export_network(origin, tmp_path / "mine")
    with pytest.raises(UsageError, match="a file"):
        export_network(origin, origin.weights)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["mine.txt"]


DRIFTS = {
    "another sum": ("x = x + y", "x = x - y", "largest difference"),
    "no module": ("import torch\n", "import torches\n", "torches"),
    "needs nasfuse": ("import torch\n", "import torch\nimport nasfuse\n", "nasfuse"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_failed_check_leaves_nothing(
    tmp_path: Path, origin: Origin, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, drift: str
) -> None:
    """A module that answers differently is not exported."""
    old, new, said = DRIFTS[drift]

    def drifted(*args: Any, **options: Any) -> str:
        text = module_source(*args, **options)
        assert old in text
        return text.replace(old, new)

    monkeypatch.setattr(formats, "module_source", drifted)
    with pytest.raises(ExportError) as caught:
        export_network(origin, tmp_path / "net", ("python",), validation=dataset.validation)
    assert said in caught.value.why
    assert caught.value.exit_code == 7
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; time.sleep(600)", "has not answered within 1 seconds"),
        ("torch.empty(2 << 30, dtype=torch.uint8)", "can't allocate memory"),
        ("import os; os.kill(os.getpid(), 24)", "CPU time limit exceeded"),
    ],
    ids=["hangs", "takes memory", "is ended"],
)
def test_what_takes_too_much_does_not_hang_the_export(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    def greedy(*args: Any, **options: Any) -> str:
        return module_source(*args, **options).replace("import torch\n", f"import torch\n{code}\n")

    monkeypatch.setattr(formats, "module_source", greedy)
    monkeypatch.setattr(verification, "MEMORY", 1 << 30)
    monkeypatch.setattr(verification, "SECONDS", 1 if "sleep" in code else 600)
    with pytest.raises(ExportError, match="cannot be loaded") as caught:
        export_network(origin, tmp_path / "net", ("python",))
    assert said in caught.value.why
    assert not (tmp_path / "net").exists()


def test_preprocessing_that_drifted_is_found(
    tmp_path: Path, origin: Origin, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalisation, device = Normalisation(origin.mean, origin.std), torch.device("cpu")
    images = Images.of(dataset.train, normalisation, resolution=16, device=device)
    recipe = origin.recipe.model_copy(update={"batch": 32})
    training = Training(build(origin.architecture), images, recipe, epochs=8, seed=0)
    while training.done < training.steps:
        training.epoch()
    state = training.network.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, origin.weights)

    def drifted(*args: Any, **options: Any) -> str:
        return module_source(*args, **options).replace("square.float()", "square.flip(2).float()")

    monkeypatch.setattr(formats, "module_source", drifted)
    with pytest.raises(ExportError) as caught:
        export_network(origin, tmp_path / "net", ("python",), validation=dataset.validation)
    assert "validation accuracy" in caught.value.why


def test_weights_that_do_not_know_what_was_recorded_are_refused(
    tmp_path: Path, origin: Origin, dataset: Dataset
) -> None:
    with pytest.raises(ExportError, match="not the trained one") as caught:
        export_network(
            replace(origin, accuracy=0.99),
            tmp_path / "net",
            ("python",),
            validation=dataset.validation,
        )
    assert caught.value.where == "recorded"


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def pickled(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def foreign(path: Path) -> None:
    save_file({"other.weight": torch.zeros(3)}, path)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)  # takes no room on the disk


@pytest.mark.parametrize("damage", [torn, pickled, foreign, huge])
def test_damaged_weights_are_refused(
    tmp_path: Path, origin: Origin, damage: Callable[[Path], None]
) -> None:
    damage(origin.weights)
    with pytest.raises(StorageError, match="damaged, or of another network"):
        export_network(origin, tmp_path / "net", ("python",))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_every_file_is_on_the_disk_before_the_export_has_its_name(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = list[os.stat_result](), os.fsync

    def noting(descriptor: int) -> None:
        if not (tmp_path / "net").exists():
            synced.append(os.fstat(descriptor))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    export_network(origin, tmp_path / "net", ("python",))
    before = {about.st_ino: about for about in synced}
    for path in (tmp_path / "net", *(tmp_path / "net").rglob("*")):
        about = path.stat()
        assert about.st_ino in before, path
        assert before[about.st_ino].st_size == about.st_size
        assert before[about.st_ino].st_mtime_ns == about.st_mtime_ns


def test_what_a_killed_export_left_is_swept(tmp_path: Path, origin: Origin) -> None:
    """But not the folder of one that runs."""
    for name in (".net-killed", ".net-running"):
        (tmp_path / name / "export").mkdir(parents=True)
        (tmp_path / name / LOCK).touch()
    with FileLock(tmp_path / ".net-running" / LOCK):
        export_network(origin, tmp_path / "net", ("python",))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"w.safetensors", "net", ".net-running"}


def test_it_says_that_photos_need_pillow(tmp_path: Path, origin: Origin) -> None:
    export_network(origin, tmp_path / "net", ("python",))
    code = (
        "sys.modules['PIL'] = None\nimport model\nsys.argv = ['model.py', 'a.jpg']\n"
        "try:\n    model.main()\nexcept SystemExit as end:\n    print(end)"
    )
    assert "pip install pillow" in isolated(code, tmp_path / "net")


def test_formats_are_known_and_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_formats("onnx, ONNX,") == ("python", "onnx")
    with pytest.raises(UsageError, match="onx"):
        parse_formats("onx")
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="onnxruntime") as caught:
        parse_formats("onnx")
    assert "pip install" in caught.value.fix
    for name in HEAVY:
        with pytest.raises(SetupError, match=name) as caught:
            parse_formats(name)
        assert caught.value.fix.startswith(f"pip install 'nasfuse[{name}]'")


def source(architecture: Architecture, classes: tuple[str, ...]) -> str:
    constants = {"CLASSES": classes, "RESOLUTION": 16, "SIDE": 9, "MEAN": (0.5,), "STD": (0.25,)}
    return module_source(architecture, about="\n".join(classes), constants=constants)


def test_text_from_outside_stays_text(tmp_path: Path, origin: Origin) -> None:
    text = source(origin.architecture, HOSTILE)
    namespace: dict[str, Any] = {"__name__": "model"}
    exec(compile(text, "model.py", "exec"), namespace)
    assert namespace["CLASSES"] == HOSTILE
    assert "os" not in namespace
    assert text.isascii() or "☃" in str(namespace["__doc__"])
    hostile = replace(origin, classes=HOSTILE[:3], data=HOSTILE[5] + HOSTILE[8])
    export_network(hostile, tmp_path / "net", ("python",))
    card = (tmp_path / "net" / "README.md").read_text()
    assert "<script>" not in card
    assert "\x1b" not in card


def test_a_full_disk_takes_no_export_and_keeps_no_half(
    disk: Any, origin: Origin, randomised: Randomised
) -> None:
    out, network = disk.folder / "exports" / "net", randomised(origin.architecture)
    out.parent.mkdir()
    disk.fill()
    with pytest.raises(StorageError, match="the disk is full") as caught:
        export_network(origin, out)
    assert "MB were free" in caught.value.why
    assert list(out.parent.iterdir()) == []
    for name in ("onnx", "pt2"):
        with pytest.raises(OSError, match="No space left"):
            FORMATS[name].write(disk.folder, origin, network)
    disk.free()
    export_network(origin, out, ["python"])
