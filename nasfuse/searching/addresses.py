"""Addresses of servers: one that a study's file names is used only where its user has named it.

A study may come from elsewhere. Who only looks at it or resumes it must not send a password or a
token that MLflow, PostgreSQL or Ray finds in the environment to a server of somebody else's choice.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress

from nasfuse.data.downloads import cache_folder
from nasfuse.errors import UsageError

NAMED = "NASFUSE_ADDRESSES"  # in the environment: addresses to be used, with spaces between them


def remember(*addresses: str | None) -> None:
    """Keep what was typed: from now on studies of this user may name it."""
    new = sorted({address for address in addresses if address} - _known())
    if not new:
        return
    path = cache_folder() / "addresses"
    with suppress(OSError):  # where nothing can be kept, a resumed search asks for it again
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{address}\n" for address in new)


def require_named(address: str, study: str) -> str:
    """The address, which this user has named before.

    Raises:
        UsageError: nobody has.
    """
    if address in os.environ.get(NAMED, "").split():
        remember(address)
    elif address not in _known():
        raise UsageError(
            f"the study '{study}' names a server that you have not named: {address}",
            where="study.yaml",
            why="a study may come from elsewhere, and servers are sent passwords and tokens",
            fix=f"export {NAMED}={shlex.quote(address)}   if it is to be used",
        )
    return address


def _known() -> set[str]:
    try:
        return set((cache_folder() / "addresses").read_text(encoding="utf-8").splitlines())
    except OSError:
        return set()
