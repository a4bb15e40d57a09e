from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from nasfuse.stopping import SAID, stop_at_once

# what an import leaves that an interrupt has ended in the wrong place
DEADLOCK = """
import _imp, threading, time
from nasfuse.cli.ending import guarded

def verb():
    _imp.acquire_lock()
    other = threading.Thread(target=lambda: __import__("wave"))
    other.start()
    print("begun", flush=True)
    try:
        time.sleep(100)
    finally:
        other.join()

guarded(verb)()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_what_cannot_end_itself(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DEADLOCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        run.send_signal(number)
        time.sleep(0.5)
        assert run.poll() is None, "it waits for a thread that waits for a lock"
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert said == f"{SAID}\n"


def test_a_part_of_another_program_raises() -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_at_once()
