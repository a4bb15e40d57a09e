"""A search without any network, and one while the wall clock jumps a day ahead and two back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
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
# a day ahead while there is a file `ahead`, behind with `behind`; the monotonic clock goes on
JUMPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *when) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, when);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        when->tv_sec += access(HERE "/ahead", F_OK) ? 0 : 86400,
        when->tv_sec -= access(HERE "/behind", F_OK) ? 0 : 86400;
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


def begin(folder: Path, *, within: list[str], **environment: str) -> subprocess.Popen[str]:
    """A small search, run by a program that runs programs."""
    (folder / "recipe.yaml").write_text(RECIPE)
    return subprocess.Popen(
        [*within, *SEARCH],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(search: subprocess.Popen[str]) -> str:
    """What it said, if it ended well."""
    said, complaints = search.communicate()
    assert search.returncode == 0, complaints
    assert complaints == ""
    return said


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
    said = end(begin(tmp_path, within=within))
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
    place = f'-DHERE="{tmp_path}"'
    shared = [compiler, place, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(shared, check=True)
    # whatever the clock does to Ray: with the first process of a namespace all others end
    alone = leaving("--pid", "--fork", "--kill-child", "--mount-proc")
    within = [*alone, "sh", "-c", '"$@"; exit $?', "sh"]
    path = tmp_path / "studies" / "s" / "results.jsonl"
    search = begin(tmp_path, within=within, LD_PRELOAD=str(library))
    for count, jump in ((1, "ahead"), (3, "behind")):
        while len(read_results(path)) < count and search.poll() is None:
            time.sleep(0.1)
        (tmp_path / "ahead").unlink(missing_ok=True)
        (tmp_path / jump).touch()
    end(search)
    results = read_results(path)
    assert len({result.key for result in results}) == 3, "it did not end when it jumped ahead"
    assert max(result.rung for result in results) == 1
    assert all(0 < result.seconds < 3600 for result in results)
    dates = {datetime.fromisoformat(result.finished).date() for result in results}
    assert len(dates) >= 3, "the clock did jump"
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
