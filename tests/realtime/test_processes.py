"""Several web processes: events cross, tickets are good everywhere but once, restarts are announced."""

import asyncio
from typing import Any

import pytest

from tests.realtime.clients import WebProcess
from tests.realtime.conftest import web_process
from tests.realtime.raw import PING, raw_client
from tests.realtime.test_handshake import _outcome
from tests.realtime.test_subscriptions import emit, tokens

Pair = tuple[WebProcess, WebProcess]


async def test_an_event_in_one_process_reaches_clients_of_both(pair: Pair, world: dict[str, Any]) -> None:
    here, there = pair
    topic = f"runs.{world['run']}"
    async with here.connect() as near, there.connect() as far:
        first = [await near.subscribe(topic), await far.subscribe(topic)]
        await emit(here, *[tokens(world, str(number)) for number in range(20)])
        for client, snapshot in zip((near, far), first, strict=True):
            events = [await client.expect("event") for _ in range(20)]
            assert [event["data"]["text"] for event in events] == [str(number) for number in range(20)]
            assert [event["seq"] - snapshot["seq"] for event in events] == list(range(1, 21))


async def test_a_ticket_is_good_once_over_all_processes(pair: Pair, world: dict[str, Any]) -> None:
    here, there = pair
    asked = await asyncio.to_thread(
        here.request, "POST", "/api/v1/ws-tickets", Authorization=f"Bearer {world['viewer']}"
    )
    path = f"/ws/v1/?ticket={asked['ticket']}"
    async with there.connect(None, path) as first, here.connect(None, path) as second:
        assert await _outcome(first) == "pong"
        assert await _outcome(second) == 4401


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
async def test_a_dead_peer_is_dropped_and_a_restart_is_announced(
    kind: str, var_dir: Any, world: dict[str, Any]
) -> None:
    starting = web_process(kind, var_dir, world, f"stopping-{kind}", REDIS_URL="", TEST_PINGS="1,2")
    process = await asyncio.to_thread(next, starting)
    try:
        async with process.connect() as client, process.connect() as other:
            async with raw_client(process) as half_open:
                # It answers no ping, as one whose network is gone, and the others do.
                assert await half_open.until(PING) is not None
                await half_open.read_to_end()
            await client.send("ping")
            await client.expect("pong")
            process.terminate()
            told = await client.expect("closing")
            assert told["code"] == 1012 and 500 <= told["retry_after_ms"] <= 10_000
            assert await client.close_code() == 1012
            assert await other.close_code() == 1012
        assert await asyncio.to_thread(process.process.wait, 15) is not None
    finally:
        starting.close()
