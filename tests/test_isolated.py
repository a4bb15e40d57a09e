"""A search without any network, while the wall clock jumps a day back and forth."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from nasfuse.results import read_results

pytestmark = pytest.mark.slow
SECONDS = 40
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: up
os.execvp(sys.argv[1], sys.argv[1:])
"""
# the monotonic clock goes on as it is
JUMPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *when) {
    static int (*real)(clockid_t, struct timespec *);
    struct timespec now;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, when);
    real(CLOCK_MONOTONIC, &now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        when->tv_sec += (now.tv_sec / 4 % 3 - 1) * 86400;
    return failed;
}
int gettimeofday(struct timeval *restrict when, void *restrict zone) {
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    (void)zone;
    if (when) { when->tv_sec = now.tv_sec; when->tv_usec = now.tv_nsec / 1000; }
    return failed;
}
time_t time(time_t *when) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (when) *when = now.tv_sec;
    return now.tv_sec;
}
"""


class Searched(NamedTuple):
    """What a search said, and how long it took by a clock that does not jump."""

    folder: Path
    run: subprocess.CompletedProcess[str]
    seconds: float
    clock: dict[str, str]  # what makes the clock jump for a program; nothing without a compiler
    trace: Path


def _clock(folder: Path) -> dict[str, str]:
    if not (compiler := shutil.which("cc")):
        return {}
    source, library = folder / "jumping.c", folder / "jumping.so"
    source.write_text(JUMPING)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("isolated")
    alone = ["unshare", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("a network cannot be left here")
    trace, clock = folder / "trace.txt", _clock(folder)
    watch = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace)]
    watch += ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    watch = watch if shutil.which("strace") else []
    words = ["search", "--budget", "1MFLOPs", "--time-limit", f"{SECONDS}s", "--workers", "1"]
    program = [sys.executable, "-m", "nasfuse", *words, "--name", "s"]
    began = time.monotonic()
    run = subprocess.run(
        [*alone, sys.executable, "-c", LOOPBACK, *watch, *program],
        cwd=folder,
        env={**os.environ, **clock},
        capture_output=True,
        text=True,
        check=False,
    )
    return Searched(folder, run, time.monotonic() - began, clock, trace)


def test_a_search_needs_no_network(searched: Searched) -> None:
    assert searched.run.returncode == 0, searched.run.stderr
    assert searched.run.stderr == "", "nobody complains that there is none"
    assert "Ray listens on 127.0.0.1 (ports " in searched.run.stdout


def test_nothing_outside_the_machine_is_asked_for(searched: Searched) -> None:
    if not searched.trace.exists():
        pytest.skip("there is no strace")
    text = searched.trace.read_text(errors="replace")
    asked = set(re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"', text))
    assert asked, "the search talks to itself"
    assert {one for one in asked if not re.fullmatch(r"(::ffff:)?127\..*|::1?", one)} == set()


def test_limits_and_order_hold_while_the_clock_jumps(searched: Searched) -> None:
    if not searched.clock:
        pytest.skip("there is no compiler for a clock that jumps")
    results = read_results(searched.folder / "studies" / "s" / "results.jsonl")
    assert searched.seconds > SECONDS / 2
    assert len({result.key for result in results}) >= 2, "it did not end when it jumped ahead"
    assert all(0 < result.seconds < searched.seconds for result in results)
    dates = {datetime.fromisoformat(result.finished).date() for result in results}
    assert len(dates) >= 2, "the clock did jump"
    first = [result.number for result in results if result.rung == 0]
    assert first == sorted(first)
    status = subprocess.run(
        [sys.executable, "-m", "nasfuse", "status", "s", "--json"],
        cwd=searched.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(status.stdout)
    assert said["networks"] == len({result.key for result in results})
    assert said["seconds_since_result"] >= 0
    newest = max(datetime.fromisoformat(result.finished) for result in results)
    if newest > datetime.now(UTC):
        assert said["seconds_since_result"] == 0
