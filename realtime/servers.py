"""What ASGI leaves out: whether a client reads, many frames at once, and the end of one who does not read.

uvicorn's `send` waits while the transport's buffer is full. daphne's never waits, its buffer grows
without bound: there we ask Twisted's transport to tell us, and wait ourselves.
"""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

from realtime.frames import Frame, close_message

# What the kernel may keep for a client that does not read, besides the outbox. By itself it keeps up to 4 MB.
SEND_BUFFER_BYTES = 131_072

Send = Callable[[dict[str, Any]], Awaitable[None]]
# What must be awaited before anything more is sent: the client does not read as fast as we send.
Behind = Awaitable[Any] | None


class Link(ABC):
    """The way to one client, open. Used in its server's event loop only."""

    __slots__ = ()

    @abstractmethod
    def write(self, frame: Frame) -> Behind:
        """Send `frame`. Raises ConnectionError, or what else the server raises, when the client has gone."""

    @abstractmethod
    def close(self, code: int, reason: str) -> Behind:
        """Say why, and close."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the connection with all that is unsent: its client reads nothing any more."""


class _AsgiLink(Link):
    """Any server."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send: Any = send

    def write(self, frame: Frame) -> Behind:
        return begun(self._send_each(frame))

    def close(self, code: int, reason: str) -> Behind:
        return begun(self._send(close_message(code, reason)))

    def abort(self) -> None:
        protocol = getattr(self._send, "protocol", None) or getattr(self._send, "__self__", None)
        drop = getattr(getattr(protocol, "transport", None), "abort", None)
        if drop is not None:
            drop()

    async def _send_each(self, frame: Frame) -> None:
        for text in frame.texts:
            await self._send({"type": "websocket.send", "text": text.decode()})


class _DaphneLink(Link):
    """daphne waits for nobody; Twisted calls what is named in its style (its IPushProducer)."""

    __slots__ = ("_protocol", "_resumed")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._resumed: asyncio.Event | None = None
        # The HTTP request that became this WebSocket is still registered, and would stop us reading.
        protocol.transport.unregisterProducer()
        protocol.transport.registerProducer(self, True)
        bound_buffer(protocol.transport.getHandle())

    def write(self, frame: Frame) -> Behind:
        # daphne's own way refuses to send more than it would receive.
        self._transport().write(frame.wire)
        return None if self._resumed is None else self._resumed.wait()

    def close(self, code: int, reason: str) -> Behind:
        self._transport()
        # daphne's own way drops the reason, and refuses 1012 as a code.
        message = close_message(code, reason)
        self._protocol.sendCloseFrame(code, message["reason"].encode())
        return None

    def abort(self) -> None:
        self._protocol.transport.abortConnection()

    def _transport(self) -> Any:
        if self._protocol.state != self._protocol.STATE_OPEN:
            raise ConnectionError("The WebSocket is closed.")
        return self._protocol.transport

    def pauseProducing(self) -> None:
        self._resumed = self._resumed or asyncio.Event()

    def resumeProducing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    stopProducing = resumeProducing


def link_of(send: Send) -> Link:
    """The way to the client behind an accepted connection's `send`."""
    protocol = getattr(send, "__self__", None)
    if isinstance(protocol, Link):
        return protocol
    if isinstance(send, partial) and hasattr(send.args[0], "sendCloseFrame"):
        return _DaphneLink(send.args[0])
    return _AsgiLink(send)


def bound_buffer(sock: socket.socket | None) -> None:
    """Let the kernel keep little for the client behind `sock`."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def begun(sending: Coroutine[Any, Any, None]) -> Behind:
    """Run `sending` up to its first wait: usually that is its end, and no task is needed."""
    try:
        waited_for = sending.send(None)
    except StopIteration:
        return None
    rest: Any = _rest(sending, waited_for)
    return rest


@coroutine
def _rest(started: Coroutine[Any, Any, None], waited_for: Any) -> Generator[Any, None, Any]:
    """What is left of a coroutine that has run up to its first wait."""
    yield waited_for
    yield from started
