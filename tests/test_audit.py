"""The audit of CI: it fails where something is known, and never passes for want of an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parent.parent / ".ci" / "audit"
PIP = """#!/bin/sh
case "$1" in
  install) {install} ;;
  freeze) echo "torch==2.13.0+cpu"; echo "idna==3.20"; echo "nasfuse @ file:///here" ;;
esac
"""
TOOL = """
import json, sys
text = open(sys.argv[sys.argv.index("--requirement") + 1]).read()
packages = [line.split("==") for line in text.split()]
known = {known!r}
found = [
    {{"name": name, "version": version, "vulns": [{{"id": "X-1", "fix_versions": ["9"]}}]}}
    for name, version in packages if f"{{name}}=={{version}}" in known
]
print(json.dumps({{"dependencies": found}}))
sys.exit(bool(found))
"""


@pytest.mark.skipif(not AUDIT.exists(), reason="only a checkout has it")
@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        (["jinja2==2.4.1"], 0, "no known vulnerabilities in 2 packages"),
        (["jinja2==2.4.1", "torch==2.13.0"], 1, "torch 2.13.0 X-1 fixed in: 9"),
        ([], 0, "NOT AUDITED: no advisories can be reached"),
        (None, 0, "NOT AUDITED: pip-audit cannot be installed"),
    ],
)
def test_what_the_audit_says(tmp_path: Path, known: list[str] | None, code: int, said: str) -> None:
    (tmp_path / "tool.py").write_text(TOOL.format(known=known))
    install = f'cp {tmp_path}/tool.py "$4/pip_audit.py"' if known is not None else "exit 1"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pip").write_text(PIP.format(install=install))
    (programs / "pip").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    path = f"{programs}:{os.environ['PATH']}"
    run = subprocess.run(
        [str(AUDIT)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert said in run.stdout
