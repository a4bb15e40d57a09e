"""MLflow's server with whole lists of runs, named `nasfuse` among its plugins (`mlflow.app`).

MLflow's pages ask for 100 runs at a time, and a chart draws the runs that were asked for. Here such
a page is longer, so the chart of a study has all its trials. Clients in Python use other paths and
get what they ask for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlflow.server.fastapi_app import app as mlflow_app

PATH = "/ajax-api/2.0/mlflow/runs/search"
PAGE, WHOLE = 100, 5000  # runs that MLflow's pages ask for, and get

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class WholeLists:
    """An ASGI application in front of another: a page of runs holds up to `WHOLE` of them."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith(PATH):
            body = longer(await _read(receive))
            scope = {**scope, "headers": _headers(scope["headers"], len(body))}
            receive = _giving(body, receive)
        await self.inner(scope, receive, send)


def longer(body: bytes) -> bytes:
    """The request for a page of runs, as one for a longer page; anything else as it is."""
    try:
        asked = json.loads(body)
    except ValueError:
        return body  # MLflow says what is wrong with it
    if not isinstance(asked, dict) or asked.get("max_results") != PAGE:
        return body
    return json.dumps({**asked, "max_results": WHOLE}).encode()


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _headers(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    others = [(name, value) for name, value in headers if name != b"content-length"]
    return [*others, (b"content-length", str(length).encode())]


def _giving(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and after it whatever comes."""
    given = False

    async def give() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


app = WholeLists(mlflow_app)
