"""Runs a program that ends when the process does that started it: `python fate.py PROGRAM ...`.

For Ray's two agents of a node (2.60). Where a search is killed, the raylet dies with it; they
notice, but then try for a minute to tell a server that died as well.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path

GLANCE = 0.5  # seconds between two looks at who the parent is


def share(parent: int) -> None:
    """End this process once another one has become its parent."""
    while os.getppid() == parent:
        time.sleep(GLANCE)
    os._exit(0)


if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as if Python had been given the program
    raylet = int(os.environ["RAY_RAYLET_PID"])  # which may have died meanwhile
    threading.Thread(target=share, args=(raylet,), daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")
