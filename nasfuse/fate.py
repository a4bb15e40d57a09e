"""Runs a program of Python that ends when the process does that started it.

    python fate.py VARIABLE PROGRAM ...     VARIABLE of the environment has that process's number
    python fate.py VARIABLE -m MODULE ...

For what would stay when that is killed: MLflow's server for ever, Ray's agents (2.60) for a minute
in which they try to tell a server that died as well, and its workers that are just starting for as
long as they look for that server.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

GLANCE = 0.5  # seconds between two looks at who the parent is


def command(variable: str) -> list[str]:
    """How such a program is started, of which its path, or -m and its name, follow."""
    return [sys.executable, "-u", __file__, variable]


def share(parent: int) -> None:
    """End this process, and those of a session of its own, once another one is its parent."""
    while os.getppid() == parent:
        time.sleep(GLANCE)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """Run the program as if Python had been given it."""
    _, variable, program, *_ = sys.argv
    parent = int(os.environ[variable])  # which may have died meanwhile
    threading.Thread(target=share, args=(parent,), daemon=True).start()
    del sys.argv[:2], sys.path[0]
    if program == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
