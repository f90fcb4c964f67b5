"""The protocol under uvicorn: what it keeps of an open connection, and how it finds who has gone."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime import lean
from realtime.frames import Pong, Unsubscribed, encode, joined
from realtime.lean import LeanProtocol
from realtime.servers import link_of
from tests.realtime.clients import eventually

TEXTS = [b"short", b"longer than 125 bytes " * 10, b"longer than 65535 bytes " * 3_000]


class Application:
    """Accepts, remembers what it was given, and echoes."""

    protocol: LeanProtocol

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket" and (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        link = link_of(send)
        assert isinstance(link, LeanProtocol)
        self.protocol = link
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
async def address(application: Application, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A server in this loop that pings every 50 ms."""
    monkeypatch.setattr(lean, "_TICK_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            application,
            ws=LeanProtocol,
            ws_ping_interval=0.05,
            ws_ping_timeout=0.1,
            ws_per_message_deflate=False,
            interface="asgi3",
            lifespan="off",
            log_level="warning",
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        await serving


async def test_several_frames_in_one_write_arrive_one_by_one(address: str, application: Application) -> None:
    frames = [encode(Unsubscribed(text.decode())) for text in TEXTS]
    async with connect(address, compression=None, max_size=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        assert application.protocol.write(joined([*frames, encode(Pong())])) is None
        expected = [*(frame.texts[0].decode() for frame in frames), '{"type":"pong"}']
        assert [await client.recv() for _ in expected] == expected


async def test_who_does_not_read_is_waited_for(address: str, application: Application) -> None:
    async with connect(address, compression=None, max_size=None, max_queue=1) as client:
        await client.send("hello")
        await client.recv()
        frame = encode(Unsubscribed("x" * 1_000_000))
        written = 1
        while (behind := application.protocol.write(frame)) is None:
            written += 1
        waiting = asyncio.ensure_future(behind)
        await asyncio.sleep(0)
        assert not waiting.done()
        assert [len(await client.recv()) for _ in range(written)] == [len(frame.texts[0])] * written
        await asyncio.wait_for(waiting, 30)
        assert application.protocol.write(encode(Pong())) is None


async def test_others_may_write_only_while_nothing_waits(address: str, application: Application) -> None:
    async with connect(address, compression=None, max_size=None, max_queue=1) as client:
        await client.send("hello")
        await client.recv()
        protocol = application.protocol
        assert protocol.idle_file == protocol.transport.get_extra_info("socket").fileno()
        written = 1
        while (behind := protocol.write(encode(Unsubscribed("x" * 1_000_000)))) is None:
            written += 1
        assert protocol.idle_file == -1
        waiting = asyncio.ensure_future(behind)
        for _ in range(written):
            await client.recv()
        await waiting
        await eventually(lambda: protocol.idle_file >= 0)
        protocol.transport.abort()
        assert protocol.idle_file == -1


async def test_pings_end_only_who_says_nothing(address: str) -> None:
    async with connect(address, ping_interval=None) as talker, silent(address) as deaf:
        with suppress(ConnectionResetError):
            # Three pings without an answer, then the end.
            assert (await deaf.read()).endswith(b"\x89\x00" * 3 + b"\x88\x18\x03\xf3keepalive ping timeout")
        await talker.send("still here")
        assert await talker.recv() == "still here"


class silent:
    """A client that answers nothing, not even pings."""

    def __init__(self, address: str) -> None:
        self._port = int(address.split(":")[2].strip("/"))

    async def __aenter__(self) -> asyncio.StreamReader:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        return reader

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()


async def test_a_connection_keeps_nothing_of_its_handshake(address: str, application: Application) -> None:
    secret = "kept-by-nobody-" * 50
    async with connect(address, additional_headers={"X-Long": secret}) as client:
        await hello(client)
        protocol = application.protocol
        assert not vars(protocol).keys() & set(LeanProtocol.__slots__)
        assert protocol.request is None and protocol.response is None
        # What it keeps itself: 40 references, and no dictionary for them.
        assert sys.getsizeof(protocol) < 500
    with pytest.raises(ConnectionError):
        await eventually(lambda: protocol.disconnected)
        protocol.write(encode(Pong()))


async def hello(client: ClientConnection) -> None:
    await client.send("hello")
    with suppress(ConnectionClosed):
        assert await client.recv() == "hello"
