"""Concurrency that adapts to the vendor: in one event loop, and shared out among all that call it."""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from django.conf import settings
from django.test.utils import override_settings

from prompts.llm import client, gates
from prompts.llm.adaptive import Gate
from prompts.llm.gates import Gates
from prompts.llm.providers.base import Completion
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask, eventually

Key = tuple[str, str]
needs_redis = pytest.mark.skipif(not settings.REDIS_URL, reason="REDIS_URL is not set")


async def test_concurrency_halves_once_for_a_burst_and_grows_back():
    gate = Gate()
    for _ in range(16):
        await gate.enter(None)
    started = time.monotonic()
    for _ in range(10):
        gate.overloaded(started)
    assert gate.limit == 8
    later = asyncio.create_task(gate.enter(None))
    await asyncio.sleep(0)
    for _ in range(8):
        gate.leave()
    await asyncio.sleep(0)
    assert not later.done()
    gate.leave()
    await later
    assert gate.in_flight == 8
    for _ in range(200):
        gate.succeeded()
    assert gate.limit == math.inf


async def test_a_gate_lets_nobody_overtake_and_loses_no_place():
    gate, order = Gate(), []

    async def pass_through(number: int) -> None:
        await gate.enter(1)
        order.append(number)
        await asyncio.sleep(0.001)
        gate.leave()

    tasks = [asyncio.create_task(pass_through(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5]
    assert gate.is_idle


@pytest.mark.usefixtures("quick_retries")
async def test_a_flood_that_the_vendor_refuses_comes_through(store: str, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.01)
    vendor.script(*[Reply(status=429, headers={"Retry-After": "0.05"})] * 15)
    requests = [ask(repeat=number, cache="no-store") for number in range(40)]
    answers = await asyncio.gather(*map(client.complete, requests))
    assert all(isinstance(answer, Completion) for answer in answers)
    assert vendor.count == 55


@asynccontextmanager
async def loops(count: int) -> AsyncIterator[list[Gates]]:
    """The gates of so many event loops, as Redis sees them."""
    opened = [Gates() for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            await one.close()


async def filled(loop: Gates, key: Key, calls: int) -> Gate:
    """Its gate, with so many calls in flight, known to the others."""
    gate = loop.of(key)
    for _ in range(calls):
        await asyncio.wait_for(gate.enter(None), 30)
    await asyncio.sleep(2 * gates.TELL_EVERY_S)
    return gate


@pytest.fixture
def key() -> Key:
    return uuid.uuid4().hex, "endpoint"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gates, "TELL_EVERY_S", 0.2)
    yield


async def until(is_so: Callable[[], bool]) -> None:
    async def check() -> bool:
        return is_so()

    await eventually(check)


@needs_redis
@pytest.mark.usefixtures("quick")
class TestShared:
    async def test_what_one_loop_learns_slows_all_by_their_demand(self, key: Key):
        async with loops(2) as (here, there):
            mine, theirs = await filled(here, key, 12), await filled(there, key, 4)
            assert (mine.limit, theirs.limit) == (math.inf, math.inf)
            mine.overloaded(time.monotonic())
            await until(lambda: (mine.limit, theirs.limit) == (6, 2))

    async def test_a_burst_seen_by_all_halves_once_and_successes_of_all_open_it_again(self, key: Key):
        async with loops(2) as (here, there):
            started = time.monotonic()
            mine, theirs = await filled(here, key, 8), await filled(there, key, 8)
            for gate in (mine, theirs):
                for _ in range(3):
                    gate.overloaded(started)
            await until(lambda: (mine.limit, theirs.limit) == (4, 4))
            await asyncio.sleep(3 * gates.TELL_EVERY_S)
            assert (mine.limit, theirs.limit) == (4, 4)
            for _ in range(60):
                mine.succeeded()
                theirs.succeeded()
            # From 8 on one more a round: sqrt(8² + 2 · 120) = 17.4, more than the 16 of before.
            await until(lambda: (mine.limit, theirs.limit) == (math.inf, math.inf))

    async def test_who_comes_later_takes_its_part_and_who_dies_leaves_it(self, key: Key):
        async with loops(2) as (here, there):
            mine = await filled(here, key, 8)
            mine.overloaded(time.monotonic())
            await until(lambda: not mine.was_refused.is_set())
            await asyncio.sleep(gates.TELL_EVERY_S)
            theirs = there.of(key)
            waiting = [asyncio.create_task(theirs.enter(None)) for _ in range(8)]
            await until(lambda: (mine.limit, theirs.limit) == (2, 2))
            assert theirs.in_flight == 2
            await there.close()
            await until(lambda: mine.limit == 4)
            for task in waiting:
                task.cancel()

    async def test_an_idle_gate_is_forgotten_and_what_was_learned_is_not(self, key: Key):
        async with loops(1) as (here,):
            gate = await filled(here, key, 8)
            gate.overloaded(time.monotonic())
            for _ in range(8):
                gate.leave()
            await until(lambda: here.of(key) is not gate)
            again = here.of(key)
            assert again.limit == 1
            waiting = [asyncio.create_task(again.enter(None)) for _ in range(8)]
            await until(lambda: again.in_flight == 4)
            for task in waiting:
                task.cancel()


@pytest.mark.usefixtures("quick")
async def test_while_redis_is_away_each_loop_adapts_alone(key: Key):
    with override_settings(REDIS_URL="redis://127.0.0.1:9/0"):
        async with loops(1) as (here,):
            gate = here.of(key)
            assert gate.limit == 1
            await until(lambda: gate.limit == math.inf)
            for _ in range(8):
                await gate.enter(None)
            gate.overloaded(time.monotonic())
            assert gate.limit == 4
            await asyncio.sleep(2 * gates.TELL_EVERY_S)
            assert gate.limit == 4
