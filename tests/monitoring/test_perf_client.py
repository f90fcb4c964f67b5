"""The load generators' HTTP client against servers that answer in all the ways HTTP/1.1 allows, and not."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from monitoring.perf.client import Answer, Client

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Local:
    """A server whose `reply` is called once a request; counts what arrived."""

    reply: Reply
    url: str = ""
    connections: int = 0
    requests: int = 0
    last: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.last = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self.reply(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[Local]:
    local = Local(reply)
    server = await asyncio.start_server(local.serve, "127.0.0.1", 0)
    local.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield local
    finally:
        server.close()


def always(data: bytes) -> Reply:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return reply


async def ask(local: Local, count: int = 1, **options: object) -> list[Answer]:
    async with Client(local.url, **{"connections": 1, **options}) as client:
        request = client.encode("GET", "/x")
        return list(await asyncio.gather(*(client.ask(request) for _ in range(count))))


async def test_one_connection_serves_many_requests_one_at_a_time():
    early: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            early.append(await asyncio.wait_for(reader.read(1), 0.02))
        except TimeoutError:
            writer.write(OK)

    async with serving(reply) as local:
        assert await ask(local, 5) == [Answer(200, b"ok")] * 5
    assert (local.connections, local.requests, early) == (1, 5, [])


async def test_it_opens_no_more_connections_than_allowed():
    async with serving(always(OK)) as local:
        assert len(await ask(local, 50, connections=4)) == 50
    assert local.connections <= 4


async def test_an_answer_in_chunks_and_in_pieces_is_joined():
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), 7):
            writer.write(data[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(reply) as local:
        assert await ask(local, 3) == [Answer(200, b"hello world")] * 3


async def test_a_connection_that_the_server_closes_is_opened_again():
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(closing)
        await writer.drain()
        writer.close()

    async with serving(reply) as local:
        assert await ask(local, 4) == [Answer(200, b"ok")] * 4
    assert local.connections == 4


async def test_an_interim_answer_is_passed_over():
    async with serving(always(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)) as local:
        assert await ask(local, 2) == [Answer(200, b"ok")] * 2


async def test_a_body_and_a_key_are_sent():
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(len(b'{"a":1}'))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(reply) as local, Client(local.url, key="af_sk_1") as client:
        answer = await client.ask(client.encode("POST", "/x", {"a": 1}))
        assert (answer.status, answer.json()) == (201, {"a": 1})
        assert b"Authorization: Bearer af_sk_1\r\n" in local.last


@pytest.mark.parametrize(
    ("data", "failure"),
    [(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", b"reset"), (b"SMTP hello\r\n\r\n", b"broken")],
)
async def test_half_an_answer_and_no_http_are_failures(data, failure):
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    async with serving(reply) as local:
        assert await ask(local, 2) == [Answer(0, failure)] * 2


async def test_silence_ends_at_the_timeout():
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(reply) as local:
        assert await ask(local, timeout_s=0.05) == [Answer(0, b"timeout")]


async def test_nobody_there_is_said_for_every_request():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert await ask(Local(always(OK), url), 3) == [Answer(0, b"refused")] * 3
