"""README's four steps to an operator of one's own, followed on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def code_of(section: str) -> list[str]:
    """The blocks of code of a section of README.md, without the indentation of their list."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^( *)```(?:python|text)\n(.*?)^ *```$", body, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


def insert(path: Path, after: str, lines: str) -> None:
    head, found, tail = path.read_text().partition(after)
    assert found, f"{path.name} has no {after!r}"
    path.write_text(f"{head}{found}{lines}{tail}")


@pytest.mark.slow
def test_the_four_steps_give_an_operator(tmp_path: Path) -> None:
    operator, row, name = code_of("An operator of your own")
    for folder in ("nasfuse", "search_spaces"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/ops/test_contract.py", tmp_path / "tests")
    ops = tmp_path / "nasfuse" / "ops"
    joining = ops / "joining.py"
    joining.write_text(f"{joining.read_text()}\n\n{operator}")
    insert(ops / "fusion.py", "FUSIONS = {\n", row)
    genes = tmp_path / "nasfuse" / "genes.py"
    kinds = re.search(r"class PlainFusion.*?kind: Literal\[\n", genes.read_text(), re.DOTALL)
    assert kinds
    insert(genes, kinds[0], name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    contract = [sys.executable, "-m", "pytest", "-q", "tests/test_contract.py", "-k", "mix"]
    run = subprocess.run(contract, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed
    assert int(passed[1]) >= 4
    code = textwrap.dedent("""
        import nasfuse
        from nasfuse.network import torch_cost
        assert "PLACE" in nasfuse.__file__
        document = nasfuse.load_architecture("resnet20").document()
        for stage in document["stages"]:
            stage["fusion"] = "mix"
        network = nasfuse.Architecture.model_validate(document)
        price = nasfuse.cost(network)
        assert (price.macs, price.params) == torch_cost(network)
        print(set(network.fusions))
    """).replace("PLACE", tmp_path.name)
    used = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert used.stdout.strip() == "{'mix'}", used.stderr[-2000:]
