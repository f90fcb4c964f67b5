"""The way in for WebSockets: one path, and no more clients than the process can hold."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from django.conf import settings

from realtime import hub, metrics
from realtime.consumers import Consumer
from realtime.frames import CloseCode, close_message
from realtime.servers import Send, protocol_of

PATH = "/ws/v1/"
RETRY_AFTER_S = 5
# A refusal has this long to reach its client.
RESPONSE_S = 5.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

metrics.capacity.set(settings.WS_MAX_CONNECTIONS)
_open = 0
_admission: list[Callable[[], bool]] = []


def admit_if(check: Callable[[], bool]) -> None:
    """Let new clients in only while `check()` is true. For the composition root (the memory guard)."""
    _admission.append(check)


async def websocket_application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application of WebSockets."""
    global _open  # noqa: PLW0603  handshakes count from their first byte on
    if scope["path"].removeprefix(scope.get("root_path", "")) != PATH:
        await _refuse_path(receive, send)
    elif _open >= settings.WS_MAX_CONNECTIONS or hub.current().is_draining or not _is_admitted():
        metrics.refused.inc()
        await _refuse_for_now(scope, receive, send)
    else:
        _open += 1
        try:
            await Consumer()(scope, receive, send)
        finally:
            _open -= 1


def _is_admitted() -> bool:
    return all(check() for check in _admission)


async def _refuse_path(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send(close_message(CloseCode.NO_SUCH_PATH, f"connect to {PATH}"))


async def _refuse_for_now(scope: Scope, receive: Receive, send: Send) -> None:
    """503 where the server can say so in a handshake, else its plain refusal (403)."""
    await receive()
    if refuse := getattr(protocol_of(send), "refuse", None):
        refuse(503, "Too many WebSockets")
        return
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"retry-after", str(RETRY_AFTER_S).encode()), (b"content-type", b"text/plain")]
    await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"Too many WebSockets: try again later.\n"})
    with suppress(TimeoutError):
        async with asyncio.timeout(RESPONSE_S):
            # uvicorn logs an error when we end before the connection does: its second word on it.
            await receive()
            await receive()
