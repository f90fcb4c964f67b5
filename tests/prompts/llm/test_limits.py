"""Limits of an endpoint: over one loop, two loops and two processes."""

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
from django.conf import settings
from django.test.utils import override_settings

from prompts.llm import client, ledger, limits
from prompts.llm.pricing import estimate_tokens
from prompts.llm.providers.base import Completion, Limits, ProviderError, Request
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask, eventually

pytestmark = pytest.mark.usefixtures("quick_retries")


async def outcomes(requests: list[Request]) -> list[Completion | BaseException]:
    return await asyncio.gather(*map(client.complete, requests), return_exceptions=True)


def refused(answers: list[Completion | BaseException]) -> int:
    """How many calls the limits let wait no longer."""
    return sum(isinstance(answer, ProviderError) and answer.code == "rate_limited" for answer in answers)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would have to wait for the next minute is refused instead."""
    monkeypatch.setattr(limits, "MAX_QUEUE_S", 2.0)


@pytest.mark.usefixtures("impatient")
async def test_requests_per_minute_hold(store: str, vendor: FakeVendor, ask: Ask):
    limit = Limits(requests_per_min=7)
    answers = await outcomes([ask(repeat=number, endpoint_limits=limit) for number in range(12)])
    assert (vendor.count, refused(answers)) == (7, 5)


@pytest.mark.usefixtures("impatient")
async def test_tokens_per_minute_hold_and_are_settled(store: str, vendor: FakeVendor, ask: Ask):
    # A call is estimated at 3 + 20 tokens and takes 7: two fit at once, but many one after the other.
    limit = Limits(tokens_per_min=60)
    requests = [ask(repeat=n, params={"max_tokens": 20}, endpoint_limits=limit) for n in range(12)]
    answers = await outcomes(requests[:4])
    assert (vendor.count, refused(answers)) == (2, 2)
    for request in requests[4:7]:
        await client.complete(request)
    assert vendor.count == 5


@pytest.mark.usefixtures("impatient")
async def test_a_call_larger_than_the_whole_limit_is_still_made(store: str, ask: Ask):
    request = ask(params={"max_tokens": 5_000}, endpoint_limits=Limits(tokens_per_min=60))
    assert (await client.complete(request)).text == "Hello world"


async def test_concurrency_is_bounded(store: str, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.03)
    limit = Limits(max_concurrency=3)
    answers = await outcomes([ask(repeat=number, endpoint_limits=limit) for number in range(12)])
    assert all(isinstance(answer, Completion) for answer in answers)
    assert vendor.max_in_flight == 3


def test_concurrency_is_bounded_over_event_loops(store: str, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.03)
    limit = Limits(max_concurrency=2)

    def run(first: int) -> None:
        requests = [ask(repeat=first + number, endpoint_limits=limit) for number in range(5)]
        asyncio.run(outcomes(requests))

    threads = [threading.Thread(target=run, args=[first]) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (vendor.count, vendor.max_in_flight) == (10, 2)


# What a call of these processes is estimated at, and takes: its input and its max_tokens.
CALL_TOKENS = estimate_tokens(({"role": "user", "content": "a 0"},), {"max_tokens": 20})
PROCESS = """
import asyncio, json, sys
from prompts.llm import client, limits
from prompts.llm.providers.base import Endpoint, Limits, ProviderError, Request
given = json.loads(sys.argv[1])
limits.MAX_QUEUE_S = given["max_queue_s"]
limit = Limits(**given["limits"])
endpoint = Endpoint(given["project"], "fake", "openai", "m", base_url=given["base_url"], limits=limit)
async def main():
    messages = [({"role": "user", "content": f"{given['name']} {n}"},) for n in range(8)]
    requests = [Request(endpoint, message, params={"max_tokens": 20}) for message in messages]
    await asyncio.gather(*map(client.complete, requests), return_exceptions=True)
asyncio.run(main())
"""


@pytest.mark.skipif(not settings.REDIS_URL, reason="REDIS_URL is not set")
@pytest.mark.parametrize(
    ("limit", "max_queue_s", "calls", "at_once"),
    [
        ({"max_concurrency": 2}, 60, 16, 2),
        ({"requests_per_min": 6}, 2, 6, 6),
        ({"tokens_per_min": 5 * CALL_TOKENS + 1}, 2, 5, 5),
    ],
    ids=["concurrency", "requests", "tokens"],
)
def test_limits_hold_over_processes(
    limit: dict, max_queue_s: float, calls: int, at_once: int, vendor: FakeVendor, ask: Ask
):
    usage = {"prompt_tokens": CALL_TOKENS - 2, "completion_tokens": 2}
    vendor.default = Reply(delay_s=0.03, usage=usage)
    given = {"project": ask().endpoint.project, "base_url": vendor.base_url}
    given |= {"limits": limit, "max_queue_s": max_queue_s}
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "autoforge.settings",
        "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1",
        "AUTOFORGE_REDIS_TIMEOUT": "30",
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, json.dumps(given | {"name": name})], env=environment)
        for name in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert vendor.count == calls
    assert vendor.max_in_flight <= at_once


async def test_who_leaves_the_queue_gives_the_place_back(store: str, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.1)
    limit = Limits(max_concurrency=1, requests_per_min=100, tokens_per_min=10_000)
    tasks = [
        asyncio.create_task(client.complete(ask(repeat=number, endpoint_limits=limit))) for number in range(6)
    ]
    await asyncio.sleep(0.05)
    for task in tasks[:5]:
        task.cancel()
    await asyncio.gather(*tasks[:5], return_exceptions=True)
    assert (await asyncio.wait_for(tasks[5], 30)).text == "Hello world"
    assert (await asyncio.wait_for(client.complete(ask(endpoint_limits=limit, repeat=9)), 30)).text


@pytest.mark.usefixtures("impatient")
async def test_a_cancelled_wait_for_the_next_minute_gives_its_turn_back(store: str, ask: Ask):
    endpoint = ask(endpoint_limits=Limits(requests_per_min=1)).endpoint
    first = await ledger.ledger().reserve(endpoint, 0, 1)
    waiting = await ledger.ledger().reserve(endpoint, 0, 120)
    assert first is not None and waiting is not None
    assert 59 <= waiting.wait_s <= 61
    await ledger.ledger().settle(endpoint, waiting, 0, is_called=False)
    again = await ledger.ledger().reserve(endpoint, 0, 120)
    assert again is not None
    assert again.second == waiting.second


async def test_no_minute_ever_holds_more_than_the_limit(store: str, ask: Ask):
    endpoint = ask(endpoint_limits=Limits(requests_per_min=5, tokens_per_min=1_000)).endpoint
    held = [await ledger.ledger().reserve(endpoint, 30, 600) for _ in range(23)]
    seconds = [reservation.second for reservation in held if reservation]
    assert seconds == sorted(seconds)
    assert len(seconds) == 23
    for later in range(5, 23):
        assert seconds[later] - seconds[later - 5] > ledger.WINDOW_S
    with pytest.raises(ledger.QueueFullError):
        await ledger.ledger().reserve(endpoint, 30, 60)


async def test_a_lease_of_a_killed_process_ends(store: str, ask: Ask, monkeypatch: pytest.MonkeyPatch):
    if store == "memory":
        pytest.skip("places in this process end with it")
    monkeypatch.setattr(ledger, "LEASE_S", 1.0)
    endpoint = ask(endpoint_limits=Limits(max_concurrency=1)).endpoint
    killed, alive = ledger.RedisLedger(), ledger.RedisLedger()
    assert await killed.reserve(endpoint, 0, 1) is not None
    assert await alive.reserve(endpoint, 0, 1) is None

    async def is_free() -> bool:
        return await alive.reserve(endpoint, 0, 1) is not None

    await eventually(is_free)


async def test_a_lease_in_use_is_renewed(store: str, ask: Ask, monkeypatch: pytest.MonkeyPatch):
    if store == "memory":
        pytest.skip("places in this process need no lease")
    monkeypatch.setattr(ledger, "LEASE_S", 0.8)
    monkeypatch.setattr(ledger, "RENEW_EVERY_S", 0.1)
    endpoint = ask(endpoint_limits=Limits(max_concurrency=1)).endpoint
    held = await ledger.ledger().reserve(endpoint, 0, 1)
    assert held is not None
    await asyncio.sleep(2)
    assert await ledger.ledger().reserve(endpoint, 0, 1) is None
    await ledger.ledger().settle(endpoint, held, 0, is_called=True)
    assert await ledger.ledger().reserve(endpoint, 0, 1) is not None


async def test_limits_hold_in_this_process_while_redis_is_down(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=0.03)
    with override_settings(REDIS_URL="redis://127.0.0.1:9/0"):
        limit = Limits(max_concurrency=2, requests_per_min=100)
        answers = await outcomes([ask(repeat=number, endpoint_limits=limit) for number in range(6)])
    assert all(isinstance(answer, Completion) for answer in answers)
    assert vendor.max_in_flight == 2


def test_a_loop_that_ends_in_mid_call_gives_its_places_back(store: str, vendor: FakeVendor, ask: Ask):
    vendor.script(*[Reply(delay_s=30)] * 2)
    limit = Limits(max_concurrency=2, tokens_per_min=10**6)

    async def leave() -> None:
        calls = [asyncio.create_task(client.complete(ask(repeat=n, endpoint_limits=limit))) for n in range(5)]
        await asyncio.to_thread(vendor.wait_until, lambda state: state.in_flight == 2)
        assert not any(call.done() for call in calls)

    async def come() -> Completion:
        return await asyncio.wait_for(client.complete(ask(repeat=9, endpoint_limits=limit)), 30)

    asyncio.run(leave())
    assert asyncio.run(come()).text == "Hello world"


async def test_an_endpoint_without_limits_asks_no_ledger(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise AssertionError("the ledger was asked")

    monkeypatch.setattr(limits, "ledger", fail)
    assert (await client.complete(ask(cache="no-store"))).text == "Hello world"
