"""A client that may break every rule of WebSockets: it writes frames, or pieces of them, byte by byte."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.realtime.clients import PATIENCE_S, WebProcess

CONTINUATION, TEXT, CLOSE, PING, PONG = 0, 1, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, is_last: bool = True) -> bytes:
    """A frame as clients send it, masked with zeros (RFC 6455 section 5.2)."""
    return head(len(payload), opcode, is_last=is_last) + payload


def head(size: int, opcode: int = TEXT, *, is_last: bool = True) -> bytes:
    """What stands before `size` bytes of payload."""
    first = opcode | (0x80 if is_last else 0)
    if size < 126:
        return bytes([first, 0x80 | size]) + b"\0" * 4
    if size < 65_536:
        return struct.pack("!BBH", first, 0xFE, size) + b"\0" * 4
    return struct.pack("!BBQ", first, 0xFF, size) + b"\0" * 4


@dataclass
class RawClient:
    """An open WebSocket as a stream of bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(PATIENCE_S):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def until(self, opcode: int) -> bytes:
        """The payload of the first frame of that kind."""
        kind, payload = await self.read()
        while kind != opcode:
            kind, payload = await self.read()
        return payload

    async def close_code(self) -> int:
        return int.from_bytes((await self.until(CLOSE))[:2])

    async def read_to_end(self) -> None:
        """Until the server has ended the connection."""
        with suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                while await self.reader.read(65_536):
                    pass

    def vanish(self) -> None:
        """End the connection as a crash does: without a word, with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def is_held_back(self, data: bytes) -> bool:
        """Whether the server takes less than `data`: it stays in our own buffer."""
        self.writer.write(data)
        try:
            async with asyncio.timeout(0.5):
                await self.writer.drain()
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def raw_client(server: WebProcess, key: str = "editor") -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    client = RawClient(reader, writer)
    writer.write(
        b"GET /ws/v1/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Authorization: Bearer " + server.world[key].encode() + b"\r\n\r\n"
    )
    try:
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        yield client
    finally:
        writer.transport.abort()
