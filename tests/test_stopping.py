from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from nasfuse.stopping import stop_at_once

# what an import leaves that an interrupt has ended in the wrong place
DEADLOCK = """
import _imp, threading, time
from nasfuse.cli.ending import guarded

def VERB():
    _imp.acquire_lock()
    other = threading.Thread(target=lambda: __import__("wave"))
    other.start()
    try:
        print("begun", flush=True)
        time.sleep(100)
    finally:
        other.join()

guarded(VERB)()
"""


@pytest.mark.parametrize(
    ("verb", "number", "last"),
    [
        (
            "train",
            signal.SIGINT,
            "stopped at once; the same command goes on from the last epoch",
        ),
        ("search", signal.SIGTERM, "stopped at once; nasfuse resume goes on with the newest study"),
        ("export", signal.SIGINT, "stopped"),
    ],
)
def test_the_second_signal_ends_what_cannot_end_itself(
    verb: str, number: signal.Signals, last: str
) -> None:
    code = DEADLOCK.replace("VERB", verb)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        run.send_signal(number)
        time.sleep(0.5)
        assert run.poll() is None, "it waits for a thread that waits for a lock"
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert said == f"{last}\n"


# an interrupt while Python tidies up after an object, where it raises nothing
LOST = """
import signal, weakref
from nasfuse.cli.ending import guarded

class Thing: ...

def search():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    print("begun", flush=True)
    del thing
    print("ignored", flush=True)

guarded(search)()
"""


def test_an_interrupt_that_python_cannot_raise_is_not_lost() -> None:
    run = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert run.returncode == 130
    assert run.stdout == "begun\n"
    assert run.stderr == "stopped at once; nasfuse resume goes on with the newest study\n"


def test_a_part_of_another_program_raises() -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_at_once()


LEFT = """
import atexit, os, sys
from nasfuse.cli.app import program

atexit.register(os.abort)  # as threads of libraries in C++ sometimes do
sys.argv = ["nasfuse", *sys.argv[1:]]
program()
"""


@pytest.mark.parametrize(
    ("words", "code", "said"), [(["spaces"], 0, "default"), (["spaces", "defualt"], 3, "")]
)
def test_a_program_that_is_done_does_nothing_more(words: list[str], code: int, said: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LEFT, *words], capture_output=True, text=True, check=False
    )
    assert run.returncode == code, run.stderr
    assert said in run.stdout
    assert bool(run.stderr) == bool(code)
