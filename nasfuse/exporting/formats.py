"""The formats of an export: what each writes, and what it needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from torch import nn

from nasfuse.costs import Shape
from nasfuse.errors import SetupError, UsageError
from nasfuse.exporting.graphs import write_onnx, write_pt2
from nasfuse.exporting.origin import Origin
from nasfuse.exporting.runtimes import write_executorch, write_openvino
from nasfuse.exporting.served import write_mlflow
from nasfuse.exporting.source import WIDTH, describe, module_source
from nasfuse.exporting.verification import trained_network
from nasfuse.kept_weights import save_weights
from nasfuse.network import cost


class Format(NamedTuple):
    """`write` puts files into a folder, for which it needs `modules`; `install` brings them."""

    write: Callable[[Path, Origin, nn.Module], None]
    modules: tuple[str, ...] = ()
    install: str = ""


def _python(folder: Path, origin: Origin, network: nn.Module) -> None:
    architecture = origin.architecture
    constants = {
        "CLASSES": origin.classes,
        "RESOLUTION": architecture.resolution,
        "SIDE": origin.side,
        "MEAN": origin.mean,
        "STD": origin.std,
    }
    text = module_source(architecture, about=_about(origin), constants=constants)
    (folder / "model.py").write_text(text, encoding="utf-8")
    document = architecture.to_json(indent=2) + "\n"
    (folder / "architecture.json").write_text(document, encoding="utf-8")
    save_weights(folder / "model.safetensors", network, key=architecture.key)


def _about(origin: Origin) -> str:
    architecture = origin.architecture
    side = architecture.resolution
    lines = (
        f"Image classifier {architecture.key}, by nasfuse {origin.versions['nasfuse']}.",
        "",
        describe(Shape(architecture.channels, side, side), cost(architecture)),
        "",
        origin.story,
        *origin.quality,
        "",
        f"Data fingerprint {origin.fingerprint}, torch {origin.versions['torch']}. "
        "The blocks are source of nasfuse, Apache-2.0.",
    )
    return "\n".join(fill(line, WIDTH) for line in lines)


def _onnx(folder: Path, origin: Origin, network: nn.Module) -> None:
    about = {"classes": origin.classes, "mean": origin.mean, "std": origin.std}
    notes = {name: json.dumps(value) for name, value in about.items()}
    write_onnx(network, origin.architecture, folder / "model.onnx", notes=notes)


def _pt2(folder: Path, origin: Origin, network: nn.Module) -> None:
    write_pt2(network, origin.architecture, folder / "model.pt2")


def _openvino(folder: Path, origin: Origin, network: nn.Module) -> None:
    write_openvino(network, origin.architecture, folder / "model.xml")


def _executorch(folder: Path, origin: Origin, network: nn.Module) -> None:
    write_executorch(network, origin.architecture, folder / "model.pte")


def _hf(folder: Path, origin: Origin, network: nn.Module) -> None:
    del network  # its weights lie there already, as model.safetensors
    document = {
        "architectures": ["Network"],
        "library_name": "pytorch",
        "id2label": dict(enumerate(origin.classes)),
        "input_size": [
            origin.architecture.channels,
            origin.architecture.resolution,
            origin.architecture.resolution,
        ],
        "mean": origin.mean,
        "std": origin.std,
        "architecture": origin.architecture.document(),
    }
    text = json.dumps(document, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


# the first two are written where nothing is asked for
FORMATS: dict[str, Format] = {
    "python": Format(_python),
    "onnx": Format(
        _onnx, ("onnx", "onnxscript", "onnxruntime"), "pip install onnx onnxscript onnxruntime"
    ),
    "pt2": Format(_pt2),
    "mlflow": Format(write_mlflow),
    "hf": Format(_hf, ("huggingface_hub",), "pip install 'nasfuse[hf]'"),
    "openvino": Format(
        _openvino,
        ("openvino", "onnx", "onnxscript"),
        "pip install 'nasfuse[openvino]'",
    ),
    "executorch": Format(_executorch, ("executorch",), "pip install 'nasfuse[executorch]'"),
}


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats of a list such as python,onnx, all known and all possible here.

    Raises:
        UsageError: there is no such format.
        SetupError: a package that it needs is missing.
    """
    wanted = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(
                f"there is no format '{name}'",
                where="--format",
                why=f"the formats are {', '.join(FORMATS)}",
                fix="--format python,onnx",
            )
        missing = [module for module in FORMATS[name].modules if find_spec(module) is None]
        if missing:
            raise SetupError(
                f"the format '{name}' needs {' and '.join(missing)}",
                where="--format",
                why="it is not installed",
                fix=f"{FORMATS[name].install}   or --format python",
            )
    return tuple(dict.fromkeys(("python", *wanted)))


def write_formats(folder: Path, origin: Origin, formats: Sequence[str]) -> None:
    """The files of these formats, with the weights as they were trained."""
    network = trained_network(origin)
    for name in formats:
        FORMATS[name].write(folder, origin, network)
