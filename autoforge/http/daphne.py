"""What daphne leaves to its application: waiting for slow clients, ending broken answers, a last word."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from autoforge.http.asgi import Message, Send


def request_of(send: Send) -> Any:
    """daphne's request behind `send`, or None under another server."""
    request = send.args[0] if isinstance(send, partial) else None
    return request if hasattr(request, "registerProducer") else None


class _PacedSend:
    """daphne's `send` that waits while the client does not read (Twisted's IPushProducer)."""

    def __init__(self, send: Send, request: Any) -> None:
        self._send = send
        self._may_write = asyncio.Event()
        self._may_write.set()
        request.registerProducer(self, True)

    async def __call__(self, message: Message) -> None:
        await self._may_write.wait()
        await self._send(message)

    def pauseProducing(self) -> None:
        self._may_write.clear()

    def resumeProducing(self) -> None:
        self._may_write.set()

    stopProducing = resumeProducing


def paced(send: Send) -> Send:
    """`send` that waits for the client as uvicorn's does; daphne's own buffers without bound."""
    request = request_of(send)
    return send if request is None else _PacedSend(send, request)


def release(send: Send) -> None:
    """Undo `paced`, before the last message."""
    if (request := request_of(send)) is not None and getattr(request, "producer", None):
        request.unregisterProducer()


def abort(send: Send) -> None:
    """Drop the connection, so that the client sees that its answer is incomplete."""
    owner = request_of(send) or getattr(send, "__self__", None)
    transport = getattr(owner, "transport", None)
    drop = getattr(transport, "abort", None) or getattr(transport, "abortConnection", None)
    if drop is not None:
        drop()


def when_running(call: Callable[[], Awaitable[None]]) -> None:
    """Run `call` once daphne's loop runs; under another server, where Twisted's never does, not at all."""
    if reactor := sys.modules.get("twisted.internet.reactor"):
        reactor.callWhenRunning(_deferred, call)


def before_shutdown(call: Callable[[], Awaitable[None]]) -> None:
    """Run `call` when daphne is told to stop, which then waits for it."""
    if reactor := sys.modules.get("twisted.internet.reactor"):
        reactor.addSystemEventTrigger("before", "shutdown", _deferred, call)


def _deferred(call: Callable[[], Awaitable[None]]) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromFuture(asyncio.ensure_future(call()))
