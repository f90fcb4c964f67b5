"""What ASGI leaves out: whether a client reads, many frames at once, and the end of one who does not read.

`realtime.lean` (uvicorn) and `realtime.daphne` are protocols of servers that are Links themselves; any other
server gets what ASGI has.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

from realtime.frames import Frame, close_message

# What the kernel may keep for a client that does not read, besides the outbox, and of one that says more than
# it is listened to. By itself it keeps up to 4 and 6 MB. What it has kept is read at once: 65,536 bytes of
# small frames take 30 ms of everybody's time.
SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES = 131_072, 32_768

Send = Callable[[dict[str, Any]], Awaitable[None]]
# What must be awaited before anything more is sent: the client does not read as fast as we send.
Behind = Awaitable[Any] | None


class Link(ABC):
    """The way to one client, open. Used in its server's event loop only."""

    __slots__ = ()

    @abstractmethod
    def write(self, frame: Frame) -> Behind:
        """Send `frame`. Raises ConnectionError, or what else the server raises, when the client has gone."""

    @property
    def idle_file(self) -> int:
        """The file number of its socket, if somebody else may write to it now; -1 if not."""
        return -1

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


def link_of(send: Send) -> Link:
    """The way to the client behind an accepted connection's `send`."""
    protocol = protocol_of(send)
    return protocol if isinstance(protocol, Link) else _AsgiLink(send)


def protocol_of(send: Send) -> Any:
    """The server's own object of the connection, where `send` is known to lead to it."""
    return send.args[0] if isinstance(send, partial) else getattr(send, "__self__", None)


def bound_buffers(sock: socket.socket | None) -> None:
    """Let the kernel keep little for the client behind `sock`."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


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
