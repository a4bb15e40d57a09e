"""The MLflow UI as a process of ours: started on this machine, waited for, and stopped cleanly."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nasfuse.errors import SetupError
from nasfuse.fate import command
from nasfuse.tracking import require_store

START_SECONDS = 60.0
STOP_SECONDS = 10.0
FIRST_PORT, PORTS = 20_000, 10_000  # below those that systems hand out
PLUGIN = "nasfuse"  # of MLflow: run_lists.py
PARENT = "NASFUSE_SERVES"  # the variable that has the number of the process that needs a server
SETTINGS = {
    # one worker and no job runner: 2 processes instead of 10, 0.4 GB instead of 1.6 GB
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server; as a context it is stopped at the end."""

    process: subprocess.Popen[bytes]
    address: str

    def stop(self) -> None:
        """End the server and its workers, by force if they have not gone after ten seconds."""
        _signal(self.process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        _signal(self.process, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def serve(
    uri: str, artifacts: Path, *, host: str = "127.0.0.1", port: int = 0, log: Path | None = None
) -> Server:
    """Start `mlflow server` over a store and return when it answers.

    Port 0 takes the same one each time for one store, or, if that is taken, any free one.

    Raises:
        StorageError: no study has been tracked here.
        SetupError: the port is taken, or the server ended or did not answer in a minute.
    """
    require_store(uri)
    port = _claim(host, port) if port else _usual(host, uri)
    with log.open("wb+") if log else tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            _command(uri, artifacts, host=host, port=port),
            env={**os.environ, **SETTINGS, PARENT: str(os.getpid())},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its workers are ended with it
        )
        server = Server(process, f"http://{host}:{port}")
        try:
            _wait(process, host, port, output=output)
        except BaseException:
            server.stop()
            raise
    return server


def open_to(host: str) -> str:
    """A warning where others than this machine reach a server on `host`; else nothing."""
    if _is_loopback(host):
        return ""
    return (
        f"warning: --host {host} lets everybody who reaches it read, change and delete all runs: "
        "MLflow asks for no password"
    )


def _is_loopback(host: str) -> bool:
    """Whether it is an address of this machine only; a name may lead anywhere, 127.example.org."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _usual(host: str, uri: str) -> int:
    """The store's own port, so that a browser finds its addresses and settings again."""
    try:
        return _claim(host, FIRST_PORT + zlib.crc32(uri.encode()) % PORTS)
    except SetupError:
        return _claim(host, 0)


def _claim(host: str, port: int) -> int:
    """A port that nobody listens on; otherwise another program's answer could pass for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise SetupError(
                "the MLflow UI cannot listen there",
                where=f"{host}:{port}",
                why=error.strerror or str(error),
                fix="leave the port out, and a free one is taken" if taken else "--host 127.0.0.1",
            ) from None
        return int(probe.getsockname()[1])


def _command(uri: str, artifacts: Path, *, host: str, port: int) -> list[str]:
    program = [*command(PARENT), "-m", "mlflow", "server", "--workers", "1", "--app-name", PLUGIN]
    listen = ["--host", host, "--port", str(port)]
    stores = ["--backend-store-uri", uri, "--artifacts-destination", str(artifacts.absolute())]
    return [*program, *listen, *stores]


def _wait(process: subprocess.Popen[bytes], host: str, port: int, *, output: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(host, port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            output.seek(0)
            tail = output.read().decode(errors="replace").strip().splitlines()[-8:]
            why = f"exit code {process.returncode}" if ended else f"silent for {START_SECONDS:g} s"
            raise SetupError(
                "the MLflow UI did not start",
                where=f"{host}:{port}",
                why="\n          ".join([why, *tail]),
            )
        time.sleep(0.2)


def _answers(host: str, port: int) -> bool:
    """Whether the server is up; asked directly, whatever proxy the environment names."""
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port)
    connection.timeout = 2
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
