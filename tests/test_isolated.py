"""A search without any network, and one while the wall clock jumps a day back and forth."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from nasfuse.results import read_results

pytestmark = pytest.mark.slow
RECIPE = "rungs: [{share: 0.02, epochs: 1}, {share: 0.1, epochs: 1}]"
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


SEARCH = [sys.executable, "-m", "nasfuse", "search", "--budget", "1MFLOPs", "--workers", "1"]
SEARCH += ["--name", "s", "--recipe", "recipe.yaml", "--trials", "3", "--time-limit", "1h"]


def searched(folder: Path, *, within: list[str], **environment: str) -> str:
    """What a small search says, run by a program that runs programs."""
    (folder / "recipe.yaml").write_text(RECIPE)
    run = subprocess.run(
        [*within, *SEARCH],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == "", "nobody complains"
    return run.stdout


def leaving(*what: str) -> list[str]:
    """The command that leaves a namespace; the test is skipped where that is not allowed."""
    command = ["unshare", *what]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip(f"{' '.join(command)} is not allowed here")
    return command


def test_a_search_needs_no_network_and_asks_for_none(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    watch = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace)]
    watch += ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    watch = watch if shutil.which("strace") else []
    within = [*leaving("--net"), sys.executable, "-c", LOOPBACK, *watch]
    said = searched(tmp_path, within=within)
    assert "Ray listens on 127.0.0.1 (ports " in said
    assert "every interface" not in said
    if watch:
        text = trace.read_text(errors="replace")
        asked = set(re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"', text))
        assert asked, "the search talks to itself"
        assert {one for one in asked if not re.fullmatch(r"(::ffff:)?127\..*|::1?", one)} == set()


def test_limits_and_order_hold_while_the_clock_jumps(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler for a clock that jumps")
    source, library = tmp_path / "jumping.c", tmp_path / "jumping.so"
    source.write_text(JUMPING)
    shared = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(shared, check=True)
    # Ray's workers may wait for ever then: with the first process of a namespace all others end
    within = [*leaving("--pid", "--fork", "--mount-proc"), "sh", "-c", '"$@"; exit $?', "sh"]
    searched(tmp_path, within=within, LD_PRELOAD=str(library))
    results = read_results(tmp_path / "studies" / "s" / "results.jsonl")
    assert len({result.key for result in results}) == 3, "it did not end when it jumped ahead"
    assert max(result.rung for result in results) == 1
    assert all(0 < result.seconds < 3600 for result in results)
    dates = {datetime.fromisoformat(result.finished).date() for result in results}
    assert len(dates) >= 2, "the clock did jump"
    first = [result.number for result in results if result.rung == 0]
    assert first == sorted(first)
    status = subprocess.run(
        [sys.executable, "-m", "nasfuse", "status", "s", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(status.stdout)
    assert said["networks"] == 3
    assert said["seconds_since_result"] >= 0
