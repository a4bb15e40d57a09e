"""The MLflow UI is for this machine, unless somebody says otherwise and is warned."""

from __future__ import annotations

import inspect
import socket

import pytest

from nasfuse.cli.looking import ui
from nasfuse.serving import _usual, open_to, serve


def test_it_listens_on_this_machine_unless_asked() -> None:
    for function in (ui, serve):
        assert inspect.signature(function).parameters["host"].default == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_warning(host: str) -> None:
    assert not open_to(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "127.example.org", "127.0.0.1.example.org"]
)
def test_another_host_is_warned_of(host: str) -> None:
    assert f"--host {host} lets everybody" in open_to(host)


def test_a_store_has_its_own_port() -> None:
    """A browser finds its addresses again; where the port is taken, another is."""
    usual = _usual("127.0.0.1", "sqlite:////studies/mlflow.db")
    with socket.create_server(("127.0.0.1", usual)):
        assert _usual("127.0.0.1", "sqlite:////studies/mlflow.db") != usual
    assert _usual("127.0.0.1", "sqlite:////studies/mlflow.db") == usual
