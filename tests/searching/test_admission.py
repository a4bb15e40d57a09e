"""Nobody is let into Ray: no search without a token, no token that others can read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nasfuse.errors import SetupError
from nasfuse.searching import cluster
from nasfuse.searching.admission import Listener, listening_line, own_listeners, require_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("address", [None, "auto"])
@pytest.mark.parametrize("mode", ["disabled", "DISABLED", "none", ""])
def test_authentication_cannot_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, mode: str, address: str | None
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(SetupError, match="let everybody in") as caught:
        require_token(address)
    assert f"RAY_AUTH_MODE={mode} " in caught.value.where
    assert caught.value.fix == "unset RAY_AUTH_MODE"


def test_a_search_on_this_machine_makes_a_token_that_no_file_has(home: Path) -> None:
    [(name, made)] = require_token(None).items()
    assert name == "RAY_AUTH_TOKEN"
    assert len(made) == 64
    assert require_token(None)[name] != made
    assert not os.environ[name]
    assert not list(home.iterdir())


def test_a_cluster_is_joined_only_with_a_token_of_one_s_own(home: Path) -> None:
    with pytest.raises(SetupError, match="no token"):
        require_token("auto")
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("secret")
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(SetupError, match="others on this machine can read") as caught:
            require_token("auto")
        assert caught.value.fix == f"chmod 600 '{path}'"
    path.chmod(0o600)
    assert require_token("auto") == {}
    assert not os.environ["RAY_AUTH_TOKEN"]


def test_the_file_that_the_environment_names_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "token"
    path.write_text("secret")
    path.chmod(0o604)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(SetupError, match="can read") as caught:
        require_token("10.0.0.1:6379")
    assert caught.value.where == str(path)


def test_where_this_process_and_its_children_listen_is_said() -> None:
    code = (
        "import socket, sys; s = socket.create_server(('', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None
        open_to_all = int(child.stdout.readline())
        found, port = own_listeners(), own.getsockname()[1]
        child.communicate()
    assert Listener(child.pid, "0.0.0.0", open_to_all) in found
    assert Listener(os.getpid(), "127.0.0.1", port) in found
    ours = [one for one in found if one.process == child.pid]
    assert listening_line(ours).startswith(f"Ray listens on every interface (ports {open_to_all})")
    both = [Listener(1, "127.0.0.1", 7), Listener(2, "127.0.0.1", 5), *ours]
    assert "on 127.0.0.1 (ports 5, 7) and every interface (" in listening_line(both)


HIDDEN = ("RAY_AUTH_TOKEN", "OMP_NUM_THREADS")
TWO_SEARCHES = """
import os
from nasfuse.searching.cluster import Resources, on_ray

for _ in range(2):
    with on_ray(Resources(1)):
        print(os.environ["RAY_AUTH_TOKEN"])
    assert not {"RAY_AUTH_TOKEN", "OMP_NUM_THREADS"} & os.environ.keys()
"""


@pytest.mark.slow
def test_each_search_of_a_process_has_a_token_of_its_own_and_leaves_none() -> None:
    """Else a search that joins a cluster would come with the token of one before it."""
    environment = {k: v for k, v in os.environ.items() if k not in HIDDEN}
    command = [sys.executable, "-c", TWO_SEARCHES]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(set(run.stdout.split())) == 2


HEAD = """
import sys, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def head_of_a_cluster(mode: str, token: str) -> Iterator[str]:
    """The address of a real cluster of one node; it ends with the block."""
    environment = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as head:
        assert head.stdout is not None
        yield head.stdout.readline().strip()
        head.communicate()


@pytest.mark.slow
def test_a_cluster_that_asks_for_no_token_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says here: it is the cluster that has to ask."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with head_of_a_cluster("disabled", "") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)  # which is what "auto" takes first
        for asked in (address, "auto"):
            with (
                pytest.raises(SetupError, match="let everybody in") as caught,
                cluster.on_ray(cluster.Resources(1, address=asked)),
            ):
                pytest.fail("it was joined")
            assert caught.value.where == address
            assert "answers without a token" in caught.value.why


@pytest.mark.slow
def test_a_cluster_that_asks_for_the_token_may_be_joined() -> None:
    with head_of_a_cluster("token", "a" * 64) as address:
        assert not cluster._lets_in_anybody(address)


def test_a_cluster_that_does_not_answer_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setattr(cluster, "ANSWER", 2.0)
    with (
        pytest.raises(SetupError, match="cannot be joined") as caught,
        cluster.on_ray(cluster.Resources(1, address="127.0.0.1:9")),
    ):
        pytest.fail("it was joined")
    assert "within 2 s" in caught.value.why
