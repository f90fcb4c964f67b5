"""One WebSocket client of a crowd: some microseconds and hardly a kibibyte, so that thousands fit.

It speaks just enough of RFC 6455: no extension, no fragments, and frames masked with zeros.
"""

import asyncio
import base64
import os
import struct
from collections.abc import Mapping
from typing import Any, Protocol

_CLOSE, _PING, _PONG, _TEXT = 8, 9, 10, 1
_HEAD_END = b"\r\n\r\n"
NO_CLOSE_FRAME = 1006


class Listener(Protocol):
    """What a crowd does with what its followers get."""

    @property
    def known(self) -> Mapping[bytes, Any]:
        """What `hear` is told of a frame, by all of its bytes."""

    def connected(self, follower: "Follower") -> None:
        """The server has accepted."""

    def refused(self, follower: "Follower", status: str) -> None:
        """The server has answered the handshake with another status."""

    def hear(self, follower: "Follower", known: Any) -> None:
        """A frame has come that is a key of `known`: its value."""

    def read(self, follower: "Follower", frame: bytes, payload: bytes) -> None:
        """A text frame has come that is not yet in `known`."""

    def closed(self, follower: "Follower", code: int) -> None:
        """The connection has ended; NO_CLOSE_FRAME without a word."""


def handshake(host: str, key: str) -> bytes:
    """The request that opens a WebSocket at `host` (with its port)."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /ws/v1/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode()


def framed(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A frame as clients send it (RFC 6455 section 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def frame_end(buffer: bytes) -> tuple[int, int]:
    """Where the payload of the first frame begins and ends; (0, 0) while its head is incomplete."""
    if len(buffer) < 2:
        return 0, 0
    size = buffer[1] & 0x7F
    start = {126: 4, 127: 10}.get(size, 2)
    if len(buffer) < start:
        return 0, 0
    if size >= 126:
        size = int.from_bytes(buffer[2:start], "big")
    return start, start + size


class Follower(asyncio.Protocol):
    """A connection that tells its listener of every text frame."""

    __slots__ = ("_hello", "_is_open", "_rest", "close_code", "listener", "seq", "transport")

    def __init__(self, listener: Listener, hello: bytes) -> None:
        self.listener, self._hello = listener, hello
        self._rest = b""
        self._is_open = False
        self.close_code = NO_CLOSE_FRAME
        self.seq = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self._hello)

    def say(self, payload: bytes) -> None:
        """Send a text frame."""
        if self.transport is not None:
            self.transport.write(framed(payload))

    def data_received(self, data: bytes) -> None:
        # Usually one whole frame comes, and another follower had the very same before.
        if self._rest or (known := self.listener.known.get(data)) is None:
            self._take(self._rest + data)
        else:
            self.listener.hear(self, known)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.listener.closed(self, self.close_code)

    def _take(self, buffer: bytes) -> None:
        if not self._is_open:
            buffer = self._accepted(buffer)
        start, end = frame_end(buffer) if self._is_open else (0, 0)
        while start and end <= len(buffer):
            self._frame(buffer[:end], start)
            buffer = buffer[end:]
            start, end = frame_end(buffer)
        self._rest = buffer

    def _accepted(self, buffer: bytes) -> bytes:
        """What follows the head of the answer, once that is whole."""
        head, found, rest = buffer.partition(_HEAD_END)
        if not found:
            return buffer
        status = head[9:12]
        if status != b"101":
            self.listener.refused(self, status.decode())
            self.transport.close()
            return b""
        self._is_open = True
        self.listener.connected(self)
        return rest

    def _frame(self, frame: bytes, start: int) -> None:
        opcode, payload = frame[0] & 0x0F, frame[start:]
        if opcode == _TEXT:
            if (known := self.listener.known.get(frame)) is None:
                self.listener.read(self, frame, payload)
            else:
                self.listener.hear(self, known)
        elif opcode == _PING:
            self.transport.write(framed(payload, _PONG))
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or NO_CLOSE_FRAME
            self.transport.write(framed(payload[:2], _CLOSE))
            self.transport.close()
