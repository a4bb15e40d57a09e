"""Who may use Ray: nobody without the token, which nobody else may read.

Ray runs what it is sent, and on a cluster it listens on every interface, so a search refuses to
start where its token would not be asked for. Ray 2.60 reads the token from RAY_AUTH_TOKEN, from
the file that RAY_AUTH_TOKEN_PATH names, else from ~/.ray/auth_token, which it writes readable for
everybody.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from nasfuse.errors import SetupError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


class Listener(NamedTuple):
    """A process that takes connections at an address."""

    process: int
    host: str
    port: int

    @property
    def everywhere(self) -> bool:
        return self.host in ("0.0.0.0", "::")


def require_token(address: str | None) -> dict[str, str]:
    """What the environment must have for Ray to start here, or to join the cluster at `address`.

    That is a new token where this machine's own Ray needs one, and nothing where there is one.

    Raises:
        SetupError: authentication is switched off, or a cluster's token is missing or no secret.
    """
    mode = os.environ.get(MODE)
    if mode is not None and mode.lower() != "token":
        raise SetupError(
            "Ray would let everybody in",
            where=f"{MODE}={mode} in the environment",
            why="its ports are open to the network, and who reaches them can run programs here",
            fix=f"unset {MODE}",
        )
    if os.environ.get(TOKEN):
        return {}
    if address is None:
        # in the environment only: Ray's own token would lie in a file for everybody to read
        return {TOKEN: secrets.token_hex(32)}
    _require_secret(Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token"))
    return {}


def open_cluster(address: str) -> SetupError:
    """The error of a cluster that has no need of a token."""
    return SetupError(
        "the Ray cluster would let everybody in",
        where=address,
        why="it answers without a token, and who reaches it can run programs on every node",
        fix=f"ray stop on every node, then ray start with {MODE}=token (README, Ray cluster)",
    )


def listening(processes: Iterable[psutil.Process]) -> list[Listener]:
    """Where these processes listen; those that have ended, or are others', are left out."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            ends = process.net_connections("inet")
            laddrs = sorted({end.laddr for end in ends if end.status == psutil.CONN_LISTEN})
            # an address of version 4 on a socket of version 6 has that in front
            found += [Listener(process.pid, h.removeprefix("::ffff:"), p) for h, p in laddrs]
    return found


def own_listeners() -> list[Listener]:
    """Where this process and all that it has started listen."""
    own = psutil.Process()
    return listening([own, *own.children(recursive=True)])


def listening_line(listeners: Sequence[Listener]) -> str:
    """What a search says of where it can be reached."""
    places = [
        f"{host} (ports {', '.join(map(str, sorted({one.port for one in group})))})"
        for host, group in _by_host(listeners).items()
    ]
    return f"Ray listens on {' and '.join(places)} for who has this search's token"


def _by_host(listeners: Sequence[Listener]) -> dict[str, list[Listener]]:
    groups: dict[str, list[Listener]] = {}
    for one in listeners:
        groups.setdefault("every interface" if one.everywhere else one.host, []).append(one)
    return groups


def _require_secret(path: Path) -> None:
    if not path.is_file():
        raise SetupError(
            "there is no token for the Ray cluster",
            where=str(path),
            why="a cluster is joined with the token that its nodes were started with",
            fix="(umask 077; ray get-auth-token --generate)   and the same file on every node, "
            "before ray start",
        )
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SetupError(
            "others on this machine can read the token of the Ray cluster",
            where=str(path),
            why=f"its mode is {mode:o}, and who has the token can run programs on every node",
            fix=f"chmod 600 '{path}'",
        )
