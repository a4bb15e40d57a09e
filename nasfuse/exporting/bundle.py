"""Export: a folder that needs nothing of ours, checked in a fresh process before it gets its name.

Weights travel as safetensors, which cannot carry code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nasfuse.architecture import Architecture
from nasfuse.costs import Shape
from nasfuse.errors import ExportError, StorageError, UsageError
from nasfuse.exporting.source import describe, module_source
from nasfuse.network import build, cost
from nasfuse.results import Result

BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Preprocessing:
    """What has to be done to an image before the network sees it, and what its outputs mean."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Check:
    """What the fresh process found: largest differences by batch size, and the cost."""

    differences: dict[int, float]
    macs: int
    params: int


def export_result(
    result: Result, weights: Path, out: Path, *, preprocessing: Preprocessing, trained: str
) -> Check:
    """Write model.py, model.safetensors, architecture.json and verify.json into `out`.

    `weights` are those of the result, `trained` says in words how they came to be.

    Raises:
        UsageError: `out` exists and is not empty.
        ExportError: the exported network does not answer as the searched one; `out` is then
            left as it was.
    """
    if out.is_file():
        raise UsageError(
            "this is a file", where=f"--out {out}", why="an export is a folder", fix="--out net/"
        )
    if out.exists() and any(out.iterdir()):
        raise UsageError(
            "the folder for the export is not empty",
            where=str(out),
            why="an export never mixes with, or replaces, other files",
            fix=f"--out {out}-2   or remove the folder",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return _publish(result, weights, out, preprocessing=preprocessing, trained=trained)
    except OSError as error:
        raise StorageError("the export cannot be written", where=str(out), why=str(error)) from None


def _publish(
    result: Result, weights: Path, out: Path, *, preprocessing: Preprocessing, trained: str
) -> Check:
    """Write beside `out`, check, and only then take its name."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        staged = Path(folder) / "export"
        staged.mkdir()
        _write(staged, result, weights, preprocessing=preprocessing, trained=trained)
        check = verify(staged, result.architecture)
        (staged / "verify.json").write_text(_verification(check), encoding="utf-8")
        if out.exists():
            out.rmdir()
        shutil.move(staged, out)
    return check


def _write(
    folder: Path, result: Result, weights: Path, *, preprocessing: Preprocessing, trained: str
) -> None:
    architecture = result.architecture
    side = architecture.resolution
    constants = {
        "CLASSES": preprocessing.classes,
        "RESOLUTION": side,
        "MEAN": preprocessing.mean,
        "STD": preprocessing.std,
    }
    shape = Shape(architecture.channels, side, side)
    about = "\n".join(
        (
            f"Image classifier {architecture.key}, found by nasfuse {result.versions['nasfuse']}.",
            "",
            describe(shape, cost(architecture)),
            f"{trained}",
            f"Data {result.data}, seed {result.seed}, torch {result.versions['torch']}.",
        )
    )
    text = module_source(architecture, about=about, constants=constants)
    (folder / "model.py").write_text(text, encoding="utf-8")
    (folder / "architecture.json").write_text(
        architecture.to_json(indent=2) + "\n", encoding="utf-8"
    )
    tensors = {name: tensor.contiguous() for name, tensor in load_file(weights).items()}
    stored = folder / "model.safetensors"
    save_file(tensors, stored, metadata={"architecture": architecture.key})
    stored.chmod((folder / "model.py").stat().st_mode)  # it is written for its owner only


def verify(folder: Path, architecture: Architecture) -> Check:
    """Load the folder in a fresh interpreter elsewhere and compare it with the searched network.

    Raises:
        ExportError: it cannot be loaded, needs nasfuse, differs in any output, or costs
            something else.
    """
    network = build(architecture)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.eval()
    side = architecture.resolution
    generator = torch.Generator().manual_seed(0)
    images = {
        str(n): torch.randn(n, architecture.channels, side, side, generator=generator)
        for n in BATCHES
    }
    answer = _ask(folder, images)
    with torch.inference_mode(), _one_thread():
        differences = {
            n: float((network(images[str(n)]) - answer["outputs"][str(n)]).abs().max())
            for n in BATCHES
        }
    price = cost(architecture)
    expected = (price.macs, price.params)
    found = (answer["macs"], answer["params"])
    if max(differences.values()) > 0 or found != expected:
        raise ExportError(
            "the exported network is not the searched one",
            where="model.py",
            why=f"largest difference {max(differences.values()):.3g}; "
            f"MACs and parameters {found}, expected {expected}",
            fix="this is a bug in nasfuse: please report it with architecture.json",
        )
    return Check(differences, *found)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the other process: more threads may add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_ASK = """
import sys, torch
from torch.utils.flop_counter import FlopCounterMode
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import model
network = model.load()
images = torch.load(sys.argv[2] + "/images.pt", weights_only=True)
with torch.inference_mode():
    outputs = {name: network(x) for name, x in images.items()}
    with FlopCounterMode(display=False) as counter:
        network(images["1"])
assert "nasfuse" not in sys.modules
answer = {
    "outputs": outputs,
    "macs": counter.get_total_flops() // 2,
    "params": sum(p.numel() for p in network.parameters()),
}
torch.save(answer, sys.argv[2] + "/answer.pt")
"""


def _ask(folder: Path, images: Mapping[str, Tensor]) -> dict[str, Any]:
    """The outputs of the exported module on these images, from another process and folder."""
    with tempfile.TemporaryDirectory(prefix="nasfuse-verify-") as elsewhere:
        torch.save(dict(images), Path(elsewhere) / "images.pt")
        command = [sys.executable, "-P", "-B", "-c", _ASK]
        done = subprocess.run(
            [*command, str(folder.resolve()), elsewhere],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ExportError(
                "the exported network cannot be loaded",
                where="model.py",
                why=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "",
                fix="this is a bug in nasfuse: please report it with architecture.json",
            )
        answer: dict[str, Any] = torch.load(Path(elsewhere) / "answer.pt", weights_only=True)
    return answer


def _verification(check: Check) -> str:
    document = {
        "checked": "a fresh Python process, isolated from this package, in another folder",
        "largest_difference_by_batch": {str(n): d for n, d in check.differences.items()},
        "macs": check.macs,
        "params": check.params,
    }
    return json.dumps(document, indent=2) + "\n"
