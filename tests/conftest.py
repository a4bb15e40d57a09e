"""What several tests share: small documents, and a tiny data set."""

from __future__ import annotations

import math
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.cli.app import main
from nasfuse.data.dataset import Dataset, Split, assemble
from nasfuse.network import build, cost
from nasfuse.recipe import Recipe
from nasfuse.results import Result
from nasfuse.searching.study import Settings
from nasfuse.space import read_space


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "slow tests that would begin later than this after the start are skipped"
    parser.addoption("--slow-until", type=float, default=math.inf, metavar="SECONDS", help=said)


def pytest_configure() -> None:
    """One thread of torch for each process of tests, and let what they start be interrupted.

    Two processes with two threads each would wait for one another most of the time. A shell's
    background jobs ignore interrupts and hand that on.
    """
    torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


BEGAN = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where time is limited, on a slow machine, slow tests are those that are left out."""
    late = time.monotonic() - BEGAN > item.config.getoption("--slow-until")
    if late and item.get_closest_marker("slow"):
        pytest.skip("no time is left for slow tests")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the programs that they start, leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """The settings of a study with a name, and whatever else is given."""

    def make(name: str = "a", **changes: Any) -> Settings:
        settings = Settings(
            id="0123456789abcdef",
            name=name,
            space_name="default",
            space=read_space("default"),
            budget=1_000_000,
            data="sample",
            side=64,
            validation=2000,
            fingerprint="0" * 12,
            classes=("a", "b"),
            mean=(0.5,),
            std=(0.25,),
            recipe=Recipe(),
            sampler="tpe",
            seed=3,
            tracking_uri=None,
            versions={"nasfuse": "0"},
        )
        return settings.model_copy(update=changes)

    return make


@dataclass(frozen=True)
class Disk:
    """A disk of 48 MB that can be filled to the last byte."""

    folder: Path

    def fill(self) -> None:
        with (self.folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(65536)):
                pass

    def free(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of its own; a test that asks for it is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    run = subprocess.run(mount, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"no disk can be mounted here: {run.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """A small complete architecture as plain values."""
    return {
        "resolution": 16,
        "channels": 1,
        "classes": 3,
        "activation": "relu",
        "stem": {"width": 8, "kernel": 3, "stride": 1},
        "stages": [
            {
                "depth": 2,
                "stride": 1,
                "block": {"kind": "residual", "kernel": 3},
                "fusion": ["add", {"kind": "aff", "reduction": 4}],
                "width": 8,
            },
            {
                "depth": 1,
                "stride": 2,
                "block": {"kind": "mbconv", "kernel": 3, "expand": 2, "se": 4},
                "fusion": ["concat"],
                "growth": 8,
            },
        ],
        "head": {"kind": "norm"},
    }


@pytest.fixture
def architecture(document: Document) -> Architecture:
    return parse_architecture(document, where="a test")


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Three classes of 8 x 8 images that a network tells apart at once: bright in one third."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 3
        images = generator.integers(0, 60, (count, 1, 9, 9), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 3 * label : 3 * label + 3] += 150
        return Split(images, labels.astype(np.int64))

    return assemble("stripes", ("top", "middle", "bottom"), train=split(96), validation=split(30))


MakeResult = Callable[..., Result]


@pytest.fixture
def make_result(architecture: Architecture) -> MakeResult:
    """Results with made-up accuracies and costs; the calibrated loss says what accuracy says."""

    def make(number: int, **changes: Any) -> Result:
        price = cost(architecture)
        accuracy = changes.get("accuracy", 0.5)
        values: Document = {
            "key": f"{number:012x}",
            "number": number,
            "rung": 0,
            "origin": "tpe",
            "status": "complete",
            "architecture": architecture,
            "macs": price.macs,
            "params": price.params,
            "thop": price.thop,
            "accuracy": 0.5,
            "loss": 1.0,
            "calibrated_loss": None if accuracy is None else -math.log(max(accuracy, 1e-6)),
            "seconds": 1.0,
            "seed": 0,
            "data": "0" * 12,
            "versions": {"nasfuse": "0"},
            "finished": "2026-01-01T00:00:00+00:00",
        }
        return Result.model_validate(values | changes)

    return make


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process, which has loaded torch already: `cli(*words, cwd=...)`."""

    def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        asked = (signal.SIGINT, signal.SIGTERM)
        heard = [signal.getsignal(number) for number in asked]
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["nasfuse", *words])
            with pytest.raises(SystemExit) as end:
                main()
        for number, handler in zip(asked, heard, strict=True):  # which the end of a verb resets
            signal.signal(number, handler)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(end.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    """How a search is asked for trainings of a few steps, on three rungs."""
    path = tmp_path / "quick.yaml"
    last = "share: 1.0, epochs: 2"
    path.write_text(f"rungs: [{{share: 0.5, epochs: 1}}, {{{last}, stop: 0.5}}, {{{last}}}]")
    return ["--recipe", str(path)]


@pytest.fixture
def descendant() -> Callable[[int, str], psutil.Process | None]:
    """Finds what a process or a child of its has started, by how a word of its command ends."""

    def find(ancestor: int, ending: str) -> psutil.Process | None:
        for process in psutil.Process(ancestor).children(recursive=True):
            with suppress(psutil.Error):
                if any(word.endswith(ending) for word in process.cmdline()):
                    return process
        return None

    return find


@pytest.fixture
def randomised() -> Callable[[Architecture], torch.nn.Module]:
    """Networks with random weights and statistics that are not those of a fresh batch norm."""

    def make(architecture: Architecture) -> torch.nn.Module:
        torch.manual_seed(1)
        network = build(architecture).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
        return network

    return make


@dataclass(frozen=True)
class Postgres:
    """A server of PostgreSQL that listens in a folder and on no port."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://nasfuse@/{database}?host={self.folder}"

    def create(self, template: str = "template0") -> str:
        """The name of a new database, a copy of the template; who uses that is thrown out."""
        import psycopg

        name = f"test_{secrets.token_hex(6)}"
        where = {"host": str(self.folder), "user": "nasfuse", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:  # type: ignore[arg-type]
            others = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
            connection.execute(others, (template,))
            connection.execute(f"create database {name} template {template}".encode())
        return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real server for this session, which asks for a password; skips where it is not installed.

    It refuses to run as root, and another user could not reach pytest's folders.
    """
    programs = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("pg_ctl", path=os.pathsep.join([*map(str, programs), os.environ["PATH"]]))
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    owner = None
    if os.getuid() == 0:
        owner = "postgres" if "postgres" in {user.pw_name for user in pwd.getpwall()} else "nobody"
    with tempfile.TemporaryDirectory(prefix="nasfuse-pg-") as name:
        folder, password = Path(name), secrets.token_hex(16)
        (folder / "password").write_text(password)
        (folder / "pgpass").write_text(f"*:*:*:nasfuse:{password}\n")
        (folder / "pgpass").chmod(0o600)
        if owner:
            shutil.chown(folder, owner)
            shutil.chown(folder / "password", owner)

        def control(*arguments: str) -> None:
            command = [found, "-D", str(folder / "data"), "-s", "-w", *arguments]
            run = subprocess.run(
                command, user=owner, cwd=folder, capture_output=True, text=True, check=False
            )
            log = folder / "log"
            said = log.read_text() if log.exists() else ""
            assert run.returncode == 0, run.stderr + said

        begin = f"-A scram-sha-256 -U nasfuse --pwfile={folder}/password -N -E UTF8 --locale=C"
        control("init", "-o", begin)
        quick = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=200"
        control("-l", str(folder / "log"), "-o", quick, "start")
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PGPASSFILE", str(folder / "pgpass"))
                yield Postgres(folder)
        finally:
            control("-m", "immediate", "stop")
