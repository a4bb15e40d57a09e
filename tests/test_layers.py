"""The house rules that a machine can keep: who may import whom, and how long things may get."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nasfuse

PACKAGE = Path(nasfuse.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

# from the ground up; a module imports only from lower layers, or from its own folder
LAYERS = [
    {"errors", "fate", "joining", "names", "pickles", "stopping", "agreement"},
    {"costs", "pareto", "files", "documents", "effects"},
    {"genes", "holes", "ops", "checkpoints", "kept_weights", "reach", "ranges", "optimizers"},
    {"stages", "recipe"},
    {"architecture"},
    {"plan", "space", "data", "muon", "capturing", "gpus", "cpu_convolutions", "layouts"},
    {"network", "references"},
    {"results", "scaling", "weights", "trained"},
    {"finals", "latency", "training"},
    {"summary", "fusion_map", "memory"},
    {"tables", "swaps", "curves"},
    {"trial_runs", "fusion_words", "hand_made"},
    {"study_runs", "empty_store"},
    {"tracking", "run_lists"},
    {"serving", "searching"},
    {"commands"},
    {"choosing", "exporting"},
    {"full_training", "registering"},
    {"terminal"},
    {"comparison"},
    {"page"},
    {"report", "fusion_report"},
    {"explaining"},
    {"view"},
    {"planning", "training_plan", "standing"},
    {"api", "machine"},
    {"screens", "fusion_screens"},
    {"training_screen"},
    {"cli"},
    {"__init__", "__main__"},
]
HOMES = {
    "huggingface_hub": {"exporting"},
    "executorch": {"exporting"},
    "onnx": {"exporting"},
    "openvino": {"exporting"},
    "onnxruntime": {"exporting"},
    "filelock": {"searching", "tracking", "exporting"},
    "matplotlib": {"report", "fusion_report"},
    "mlflow": {"tracking", "study_runs", "exporting", "registering", "run_lists"},
    "optuna": {"searching"},
    "packaging": {"machine"},
    "PIL": {"data"},
    "platformdirs": {"data"},
    "plotly": {"page"},
    "psutil": {"files", "machine", "memory", "searching"},
    "ray": {"searching"},
    "rich": {"screens", "terminal", "fusion_screens", "training_screen"},
    "scipy": {"effects", "finals"},
    "sqlalchemy": {"searching"},
    "safetensors": {"kept_weights"},
    "sklearn": {"data"},
    "thop": {"network"},
    "typer": {"cli"},
    "yaml": {"documents", "searching"},
}


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imported(ast.parse(path.read_text())):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if top == "nasfuse" and other != own:
            assert other, "nothing inside the package imports a name of its root"
            assert layer(other) < layer(own), f"{own} must not import {other}"
        assert own in HOMES.get(top, {own}), f"only {HOMES[top]} may import {top}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Global), "no global"
        if isinstance(node, ast.FunctionDef) and "cli" not in path.parts:
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            count -= bool(arguments.args and arguments.args[0].arg in {"self", "cls"})
            # modules and their costs name every size of a layer
            assert count <= (8 if "ops" in path.parts else 6), f"{node.name} takes {count}"


@pytest.mark.parametrize(
    ("words", "completing"),
    [
        ("--help", ""),
        ("serch", ""),
        ("search --bugdet 4M", ""),
        ("search --budget 1KMACs", ""),
        ("search --sampler ev", "1"),
    ],
)
def test_help_mistakes_and_completion_import_nothing_heavy(words: str, completing: str) -> None:
    """They answer in a fraction of a second, because of what they leave alone."""
    code = (
        "import sys, atexit, nasfuse.cli.app\n"
        "heavy = {'torch', 'numpy', 'ray', 'optuna', 'mlflow', 'plotly', 'yaml', 'rich'}\n"
        "atexit.register(lambda: print('loaded', sorted(heavy & set(sys.modules))))\n"
        f"sys.argv = {['nasfuse', *words.split()]}\n"
        "nasfuse.cli.app.main()"
    )
    asked = {"COMP_WORDS": f"nasfuse {words}", "COMP_CWORD": str(len(words.split()))}
    environment = {"_NASFUSE_COMPLETE": "complete_bash", **asked} if completing else {}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines()[-1] == "loaded []", run.stderr
    assert ("evolution" in run.stdout) == bool(completing)


def test_public_names_are_what_they_say() -> None:
    for name in nasfuse.__all__:
        assert getattr(nasfuse, name).__name__ in {name, "result_front"}
    assert callable(nasfuse.cost)
    assert callable(nasfuse.search)
    assert callable(nasfuse.export)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nasfuse.nothing
