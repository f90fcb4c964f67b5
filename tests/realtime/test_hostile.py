"""What broken and hostile clients do costs little, and harms nobody else."""

import asyncio
import json
from typing import Any

import psutil
import pytest

from realtime.lean import MAX_FRAGMENTS
from tests.realtime.clients import WebProcess, WebSocketClient
from tests.realtime.raw import CONTINUATION, PING, PONG, TEXT, RawClient, frame, head, raw_client
from tests.realtime.test_subscriptions import emit, tokens

HELLO = b'{"type":"ping"}'
# What a process may grow by while somebody sends it much more.
BOUND_BYTES = 30 * 2**20


async def assert_serves(client: WebSocketClient) -> None:
    await client.send("ping")
    await client.expect("pong")


async def gauges(server: WebProcess) -> dict[str, float]:
    """Connections and subscriptions, as the server counts them."""
    text = await asyncio.to_thread(server.fetch, "/metrics")
    lines = [line.split() for line in text.decode().splitlines() if line.startswith("autoforge_websocket_")]
    return {name: float(value) for name, value in lines if name.endswith(("connections", "subscriptions"))}


async def test_a_message_may_come_in_pieces(server: WebProcess) -> None:
    async with raw_client(server) as client:
        client.writer.write(frame(HELLO[:4], TEXT, is_last=False) + frame(b"are you there", PING))
        client.writer.write(frame(b"", CONTINUATION, is_last=False) + frame(HELLO[4:], CONTINUATION))
        assert await client.read() == (PONG, b"are you there")
        assert await client.read() == (TEXT, b'{"type":"pong"}')


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(b'{"type":"\xff"}'), 1007, id="no UTF-8"),
        pytest.param(
            frame(b"\xc3", is_last=False) + frame(b"(", CONTINUATION), 1007, id="no UTF-8 in pieces"
        ),
        pytest.param(head(1_000_000), 1009, id="1 MB to come"),
        pytest.param(
            frame(b"", is_last=False) + frame(b"x" * 9_000, CONTINUATION, is_last=False) * 5,
            1009,
            id="much in pieces",
        ),
        pytest.param(frame(HELLO, CONTINUATION), 1002, id="a piece of nothing"),
        pytest.param(frame(HELLO, 3), 1002, id="no such kind of frame"),
    ],
)
async def test_what_breaks_the_protocol_ends_its_connection_alone(
    server: WebProcess, sent: bytes, code: int
) -> None:
    async with server.connect() as witness, raw_client(server) as client:
        client.writer.write(sent)
        assert await client.close_code() == code
        await assert_serves(witness)
    assert server.logged_errors() == []


async def test_a_message_too_long_is_refused_and_the_connection_stays(server: WebProcess) -> None:
    async with server.connect() as client:
        await client.connection.send("x" * 35_000)
        assert (await client.expect("error"))["code"] == "too_large"
        await assert_serves(client)


async def test_endless_pieces_of_nothing_are_bounded(server: WebProcess) -> None:
    async with server.connect() as witness, raw_client(server) as client:
        client.writer.write(frame(b"", is_last=False))
        client.writer.write(frame(b"", CONTINUATION, is_last=False) * MAX_FRAGMENTS)
        if server.server == "uvicorn":
            assert await client.close_code() == 1008
        else:  # its parser keeps nothing of them
            client.writer.write(frame(HELLO, CONTINUATION))
            assert json.loads(await client.until(TEXT)) == {"type": "pong"}
        await assert_serves(witness)


@pytest.mark.parametrize("flood", [frame(HELLO), frame(b"x" * 125, PING)], ids=["messages", "pings"])
async def test_a_flood_is_held_back_and_nobody_else_waits(server: WebProcess, flood: bytes) -> None:
    process = psutil.Process(server.process.pid)
    async with server.connect() as witness, raw_client(server) as client:
        await assert_serves(witness)
        before = process.memory_info().rss
        # It never reads what it is answered either.
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        assert await client.is_held_back(flood * (40_000_000 // len(flood)))
        for _ in range(20):
            await assert_serves(witness)
        assert process.memory_info().rss - before < BOUND_BYTES
    await left(server)


async def test_a_storm_of_subscriptions_costs_few_reads(server: WebProcess, world: dict[str, Any]) -> None:
    topic = f"runs.{world['run']}"
    async with server.connect() as witness, server.connect() as client:
        await witness.subscribe(topic)
        for _ in range(400):
            await client.send("subscribe", topic=topic)
        await client.send("unsubscribe", topic=topic)
        assert len(await client.until("unsubscribed")) < 100
        last = await client.subscribe(topic)
        await emit(server, tokens(world, "after the storm"))
        assert (await client.expect("event"))["seq"] == last["seq"] + 1
        assert (await witness.expect("event"))["data"]["text"] == "after the storm"


async def test_who_vanishes_leaves_nothing_behind(server: WebProcess, world: dict[str, Any]) -> None:
    topic = f"runs.{world['run']}"
    await left(server)
    async with raw_client(server) as client, server.connect() as witness:
        await witness.subscribe(topic)
        await say(client, "subscribe", topic=topic)
        await say(client, "complete", id="c1", model="slow", messages=[{"role": "user", "content": "vanish"}])
        await client.until(TEXT)
        client.vanish()
        await emit(server, tokens(world, "to nobody"))
        await witness.expect("event")
        await left(server, 1)
    async with server.connect() as again:
        assert (await again.subscribe(topic))["type"] == "snapshot"
    assert server.logged_errors() == []


async def say(client: RawClient, type: str, **fields: Any) -> None:
    client.writer.write(frame(json.dumps({"type": type, **fields}).encode()))
    await client.writer.drain()


async def left(server: WebProcess, count: int = 0) -> None:
    """Wait until the server knows that only `count` connections, with a topic each, are left."""
    async with asyncio.timeout(20):
        while set((await gauges(server)).values()) != {float(count)}:  # noqa: ASYNC110  the server tells
            await asyncio.sleep(0.05)
