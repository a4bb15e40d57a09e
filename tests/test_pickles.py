"""Nothing that nasfuse starts unpickles what a file holds."""

from __future__ import annotations

import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nasfuse.architecture import Architecture
from nasfuse.exporting.graphs import write_pt2
from nasfuse.exporting.verification import ENVIRONMENT
from nasfuse.network import build
from nasfuse.pickles import NO_PICKLES
from nasfuse.searching import cluster


class Code:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_graph_with_code_in_it_runs_none_and_a_good_one_loads(
    tmp_path: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_PICKLES.items():
        monkeypatch.setenv(name, value)
    good, crafted = tmp_path / "good.pt2", tmp_path / "crafted.pt2"
    write_pt2(build(architecture), architecture, good)
    torch.export.load(good).module()
    torch.save(Code(tmp_path / "mark"), tmp_path / "example", pickle_module=pickle)
    changed = 0
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(crafted, "w") as new:
        for name in old.namelist():
            is_example = "sample_inputs" in name
            changed += is_example
            new.writestr(
                name, (tmp_path / "example").read_bytes() if is_example else old.read(name)
            )
    assert changed == 1
    with pytest.raises(pickle.UnpicklingError):
        torch.export.load(crafted)
    assert not (tmp_path / "mark").exists()


def test_the_command_line_and_what_it_starts_are_told(
    tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    cli("spaces", cwd=tmp_path)
    for told in (os.environ, cluster.ENVIRONMENT, ENVIRONMENT):
        assert NO_PICKLES.items() <= dict(told).items()
