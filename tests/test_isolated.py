"""A search without any network asks for none."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RECIPE = "rungs: [{share: 0.02, epochs: 1}, {share: 0.1, epochs: 1}]"
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: up
os.execvp(sys.argv[1], sys.argv[1:])
"""

SEARCH = [sys.executable, "-m", "nasfuse", "search", "--budget", "1MFLOPs", "--workers", "1"]
SEARCH += ["--name", "s", "--recipe", "recipe.yaml", "--trials", "3", "--time-limit", "1h"]


def searched(folder: Path, *, within: list[str]) -> str:
    """What a small search said that ended well, run by a program that runs programs."""
    (folder / "recipe.yaml").write_text(RECIPE)
    run = subprocess.run(
        [*within, *SEARCH], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def leaving(*what: str) -> list[str]:
    """The command that leaves a namespace; the test is skipped where that is not allowed."""
    command = ["unshare", *what]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip(f"{' '.join(command)} is not allowed here")
    return command


def test_a_search_needs_no_network_and_asks_for_none(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, which sees what is connected to")
    trace = tmp_path / "trace.txt"
    watch = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace)]
    watch += ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    within = [*leaving("--net"), sys.executable, "-c", LOOPBACK, *watch]
    said = searched(tmp_path, within=within)
    assert "Ray listens on 127.0.0.1 (ports " in said
    assert "every interface" not in said
    text = trace.read_text(errors="replace")
    asked = set(re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"', text))
    assert asked, "the search talks to itself"
    assert {one for one in asked if not re.fullmatch(r"(::ffff:)?127\..*|::1?", one)} == set()
