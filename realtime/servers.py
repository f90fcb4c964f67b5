"""What ASGI leaves out: whether a client reads, and how to end a connection that does not.

uvicorn's `send` waits while the transport's buffer is full. daphne's never waits, its buffer grows
without bound: there we ask Twisted's transport to tell us, and wait ourselves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

# RFC 6455 section 5.2.
_TEXT = 1

Send = Callable[[dict[str, Any]], Awaitable[None]]


class _PacedSend:
    """daphne's `send` that waits like uvicorn's; Twisted calls the rest (its IPushProducer)."""

    __slots__ = ("_resumed", "_send", "protocol")

    def __init__(self, send: Send, protocol: Any) -> None:
        self._send = send
        self._resumed: asyncio.Event | None = None
        self.protocol = protocol
        transport = protocol.transport
        # The HTTP request that became this WebSocket is still registered, and would stop us reading.
        transport.unregisterProducer()
        transport.registerProducer(self, True)

    async def __call__(self, message: dict[str, Any]) -> None:
        while self._resumed is not None:
            await self._resumed.wait()
        protocol = self.protocol
        if message["type"] == "websocket.accept":
            await self._send(message)
        elif protocol.state != protocol.STATE_OPEN:
            raise ConnectionError("The WebSocket is closed.")
        elif message["type"] == "websocket.close":
            # daphne's own way drops the reason, and refuses 1012 as a code.
            protocol.sendCloseFrame(message["code"], message["reason"].encode())
        else:
            # daphne's own way refuses to send more than it would receive.
            protocol.sendFrame(_TEXT, message["text"].encode())

    def pauseProducing(self) -> None:
        self._resumed = self._resumed or asyncio.Event()

    def resumeProducing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    stopProducing = resumeProducing


def paced(send: Send) -> Send:
    """`send` that waits while the client does not read, whatever the server."""
    if isinstance(send, partial) and hasattr(send.args[0], "transport"):
        return _PacedSend(send, send.args[0])
    return send


def abort(send: Send) -> None:
    """Drop the connection behind `send` with all that is unsent: its client reads nothing any more."""
    protocol = getattr(send, "protocol", None) or getattr(send, "__self__", None)
    transport = getattr(protocol, "transport", None)
    drop = getattr(transport, "abort", None) or getattr(transport, "abortConnection", None)
    if drop is not None:
        drop()
