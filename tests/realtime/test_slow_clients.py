"""A client that does not read is closed, and nobody else notices."""

import asyncio
import socket
from typing import Any

from tests.realtime.clients import PATIENCE_S, WebProcess, WebSocketClient
from tests.realtime.test_subscriptions import emit, tokens

# More than the sockets' buffers and an outbox of 16 frames can hold.
FRAMES, TEXT = 100, "x" * 100_000


def small_socket(server: WebProcess) -> socket.socket:
    """A client's socket that takes in little before its owner reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.setblocking(False)
    return sock


async def read_all(client: WebSocketClient) -> list[int]:
    return [(await client.expect("event"))["seq"] for _ in range(FRAMES)]


async def test_a_client_that_does_not_read_is_closed_and_delays_nobody(
    server: WebProcess, world: dict[str, Any]
) -> None:
    topic = f"runs.{world['run']}"
    async with (
        server.connect(max_size=None) as witness,
        server.connect(sock=small_socket(server), max_size=None, max_queue=1) as slow,
    ):
        first = (await witness.subscribe(topic))["seq"]
        await slow.subscribe(topic)
        reading = asyncio.create_task(read_all(witness))
        for _ in range(FRAMES // 10):
            await emit(server, *[tokens(world, TEXT)] * 10)
        # The slow client has read nothing yet, and the witness has everything.
        seqs = await asyncio.wait_for(reading, PATIENCE_S)
        assert seqs == list(range(first + 1, first + 1 + FRAMES))
        assert await slow.close_code() == 4408
    async with server.connect() as again:
        assert (await again.subscribe(topic))["type"] == "snapshot"
