from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nasfuse.architecture import Architecture
from nasfuse.errors import ExportError, UsageError
from nasfuse.exporting.bundle import Preprocessing, export_result
from nasfuse.exporting.source import module_source
from nasfuse.network import build, cost
from nasfuse.results import Result
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space, space_names

MakeResult = Callable[..., Result]
HOSTILE = ('"""', "it's", "\\", "a\nb", "{}", "<script>", "naïve ☃", "');import os;('")


def weights(architecture: Architecture, path: Path) -> Path:
    """Random weights with statistics that are not those of a fresh batch norm."""
    torch.manual_seed(1)
    network = build(architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


def preprocessing(classes: tuple[str, ...] = ("a", "b", "c")) -> Preprocessing:
    return Preprocessing(classes, (0.25,), (0.5,))


def test_exported_files_stand_alone(
    tmp_path: Path, architecture: Architecture, make_result: MakeResult
) -> None:
    result = make_result(0, key=architecture.key, versions={"nasfuse": "0", "torch": "0"})
    stored = weights(architecture, tmp_path / "w.safetensors")
    out = tmp_path / "a folder" / "net"
    check = export_result(
        result, stored, out, preprocessing=preprocessing(), trained="Not trained at all."
    )
    assert set(check.differences.values()) == {0.0}
    assert (check.macs, check.params) == cost(architecture)[:2]
    assert {p.name for p in out.iterdir()} == {
        "architecture.json",
        "model.py",
        "model.safetensors",
        "verify.json",
    }
    assert load_file(out / "model.safetensors").keys() == load_file(stored).keys()
    assert json.loads((out / "architecture.json").read_text()) == architecture.document()
    code = (
        "import sys; sys.path.insert(0, '.'); import torch, model\n"
        "images = torch.zeros(2, 1, 9, 9, dtype=torch.uint8)\n"
        "print(tuple(model.load()(model.normalise(images)).shape), model.CLASSES)\n"
        "assert not {'nasfuse', 'safetensors'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=out, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "(2, 3) ('a', 'b', 'c')"


def test_an_export_never_replaces_files(
    tmp_path: Path, architecture: Architecture, make_result: MakeResult
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not empty"):
        export_result(
            make_result(0), tmp_path / "w", tmp_path, preprocessing=preprocessing(), trained=""
        )
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_check_leaves_nothing(
    tmp_path: Path,
    architecture: Architecture,
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A module that answers differently is not exported."""
    import nasfuse.exporting.bundle as bundle

    def drifted(*args: object, **kwargs: object) -> str:
        return module_source(*args, **kwargs).replace(  # type: ignore[arg-type]
            "x = x + y", "x = x - y"
        )

    monkeypatch.setattr(bundle, "module_source", drifted)
    result = make_result(0, versions={"nasfuse": "0", "torch": "0"})
    stored = weights(architecture, tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match="not the searched one"):
        export_result(result, stored, tmp_path / "net", preprocessing=preprocessing(), trained="")
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def source(architecture: Architecture, classes: tuple[str, ...] = ("a", "b")) -> str:
    constants = {"CLASSES": classes, "RESOLUTION": 16, "MEAN": (0.5,), "STD": (0.25,)}
    return module_source(architecture, about="\n".join(classes), constants=constants)


@pytest.mark.parametrize("name", space_names())
def test_sampled_networks_have_the_same_source_and_keys(name: str, tmp_path: Path) -> None:
    """Difference 0 and clean, formatted source for networks of every shipped space."""
    space, budget = load_space(name), 20_000_000 if name == "mobile" else 4_000_000
    for seed in range(25):
        candidate = space.sample(seed)
        network = fit_to_budget(candidate.architecture, candidate.scaling, budget)
        text = source(network)
        (tmp_path / f"model{seed}.py").write_text(text)
        namespace: dict[str, object] = {"__name__": "model"}
        exec(compile(text, "model.py", "exec"), namespace)
        torch.manual_seed(seed)
        searched = build(network).eval()
        exported = namespace["Network"]()  # type: ignore[operator]
        exported.load_state_dict(searched.state_dict())
        x = torch.randn(2, network.channels, network.resolution, network.resolution)
        with torch.no_grad():
            assert torch.equal(searched(x), exported.eval()(x))
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", str(tmp_path)]
        run = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout


def test_text_from_outside_stays_text(architecture: Architecture) -> None:
    text = source(architecture, HOSTILE)
    namespace: dict[str, object] = {"__name__": "model"}
    exec(compile(text, "model.py", "exec"), namespace)
    assert namespace["CLASSES"] == HOSTILE
    assert "os" not in namespace
    assert text.isascii() or "☃" in str(namespace["__doc__"])


def test_exports_are_byte_identical(architecture: Architecture) -> None:
    assert source(architecture) == source(architecture)
