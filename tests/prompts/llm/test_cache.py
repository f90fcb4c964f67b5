"""The response cache: what is stored, what is replayed, what makes a question another one."""

import asyncio
import socket
from decimal import Decimal

import msgspec
import pytest
from django.test.utils import override_settings

from prompts.llm import client
from prompts.llm.cache import MemoryCache, key_of, response_cache
from prompts.llm.providers.base import Completion, Delta, Prices, ProviderError, Request, Usage
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask, eventually

PRICES = Prices(Decimal(2), Decimal(10))
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def completion_of(text: str = "hi", **extra: object) -> Completion:
    return Completion(text, "stop", Usage(1, 1), Decimal("0.1"), 10.0, 5.0, False, "m", extra=extra)


async def test_the_same_question_is_paid_for_once(store: str, vendor: FakeVendor, ask: Ask):
    first = await client.complete(ask(endpoint_prices=PRICES))
    second = await client.complete(ask(endpoint_prices=PRICES))
    assert vendor.count == 1
    assert (second.cached, second.cost_usd, second.saved_usd) == (True, 0, first.cost_usd)
    assert first.cost_usd == Decimal("0.00003")
    assert (second.text, second.usage, second.finish_reason) == (first.text, first.usage, first.finish_reason)
    assert (response_cache().stats.hits, response_cache().stats.misses) == (1, 1)


async def test_a_hit_replays_as_a_stream_with_every_field(store: str, vendor: FakeVendor, ask: Ask):
    vendor.script(
        Reply(
            deltas=(
                {"reasoning_content": "Let me "},
                {"reasoning_content": "think."},
                {"tool_calls": [CALL | {"function": {"name": "f", "arguments": ""}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
            ),
            finish_reason="tool_calls",
        )
    )
    original = [part async for part in client.stream(ask())][-1]
    *deltas, replayed = [part async for part in client.stream(ask())]
    assert isinstance(original, Completion) and isinstance(replayed, Completion)
    function = {"name": "f", "arguments": '{"a":1}'}
    assert (
        original.extra
        == replayed.extra
        == {
            "system_fingerprint": "fp_fake",
            "reasoning_content": "Let me think.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        }
    )
    [delta] = deltas
    assert isinstance(delta, Delta)
    assert delta.text == "Hello world"
    assert delta.extra is not None
    assert delta.extra["tool_calls"][0] == CALL | {"function": function}
    assert replayed.cached


async def test_no_cache_asks_again_and_stores(store: str, vendor: FakeVendor, ask: Ask):
    await client.complete(ask())
    vendor.default = Reply(text="newer")
    assert (await client.complete(ask(cache="no-cache"))).text == "newer"
    assert (await client.complete(ask())).text == "newer"
    assert vendor.count == 2


async def test_no_store_neither_reads_nor_stores(store: str, vendor: FakeVendor, ask: Ask):
    await client.complete(ask(cache="no-store"))
    assert not (await client.complete(ask())).cached
    assert not (await client.complete(ask(cache="no-store"))).cached
    assert vendor.count == 3


async def test_a_failure_is_not_stored(store: str, vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=400))
    with pytest.raises(ProviderError):
        await client.complete(ask())
    assert not (await client.complete(ask())).cached


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint_project": "another"},
        {"endpoint_base_url": "http://elsewhere.example/v1"},
        {"endpoint_model": "another"},
        {"endpoint_provider": "anthropic"},
        {"messages": ({"role": "system", "content": "hi"},)},
        {"params": {"temperature": 0}},
        {"repeat": 1},
    ],
    ids=str,
)
def test_whatever_can_change_an_answer_is_in_its_key(change: dict, ask: Ask):
    assert key_of(ask(**change)) != key_of(ask())


def test_what_cannot_change_an_answer_is_not_in_its_key(ask: Ask):
    same = ask(endpoint_api_key="rotated", endpoint_name="renamed", params={"timeout_s": 3, "stream": True})
    assert key_of(same) == key_of(ask())
    assert key_of(ask(params={"a": 1, "b": 2})) == key_of(ask(params={"b": 2, "a": 1}))
    assert key_of(ask(expected="yes")) == key_of(ask(expected="no"))


def test_a_simulated_model_is_its_settings(ask: Ask):
    def key(output: str, expected: str) -> str:
        return key_of(
            ask(endpoint_provider="simulated", endpoint_settings={"output": output}, expected=expected)
        )

    assert key("expected", "yes") != key("expected", "no")
    assert key("echo", "yes") == key("echo", "no") != key("other", "yes")


async def test_large_answers_are_compressed_and_come_back(store: str, ask: Ask):
    cache, key = response_cache(), key_of(ask())
    original = completion_of("word " * 20_000, reasoning_content="é" * 5_000)
    await cache.put(key, original)
    assert await cache.get(key) == original
    if isinstance(cache, MemoryCache):
        assert cache.size_bytes < 10_000


async def test_answers_expire(store: str, ask: Ask):
    with override_settings(CACHE_TTL_S={"llm_responses": 1}):
        cache = response_cache()
    await cache.put(key_of(ask()), completion_of())
    assert await cache.get(key_of(ask())) is not None

    async def is_forgotten() -> bool:
        return await cache.get(key_of(ask())) is None

    await eventually(is_forgotten)


async def test_the_longest_unused_entry_leaves_first():
    cache = MemoryCache(max_entries=3, max_bytes=10**9, ttl_s=60)
    for name in "abc":
        await cache.put(name, completion_of(name))
    await cache.get("a")
    await cache.put("d", completion_of("d"))
    assert [await cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (len(cache), cache.stats.evicted) == (3, 1)


async def test_the_cache_in_memory_is_bounded_by_bytes():
    cache = MemoryCache(max_entries=1_000, max_bytes=20_000, ttl_s=60)
    for number in range(100):
        await cache.put(str(number), completion_of(f"{number}" * 500))
        assert cache.size_bytes <= 20_000
    assert 0 < len(cache) < 40
    assert cache.trim(0.5) > 0
    assert cache.size_bytes <= 10_000
    await cache.clear()
    assert (len(cache), cache.size_bytes) == (0, 0)


async def test_an_answer_in_another_shape_is_a_miss():
    cache = MemoryCache(max_entries=3, max_bytes=10**9, ttl_s=60)
    for blob in [b"\x01" + msgspec.msgpack.encode({"text": 1}), b"\x02nonsense", b""]:
        cache._blobs["a"] = (float("inf"), blob)
        assert await cache.get("a") is None


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_redis_that_is_down_is_a_miss(vendor: FakeVendor, ask: Ask, caplog: pytest.LogCaptureFixture):
    with override_settings(REDIS_URL=f"redis://127.0.0.1:{unused_port()}/0"):
        answers = await asyncio.gather(*(client.complete(ask(repeat=i)) for i in range(50)))
        again = await client.complete(ask(repeat=0))
        errors = response_cache().stats.errors
    assert {answer.text for answer in answers} == {"Hello world"}
    assert (again.cached, vendor.count) == (False, 51)
    assert errors >= 51
    assert len([record for record in caplog.records if "Redis" in record.message]) == 1


async def test_redis_that_hangs_delays_little(vendor: FakeVendor, ask: Ask):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with override_settings(REDIS_URL=url, REDIS_TIMEOUT_S=0.1):
            requests: list[Request] = [ask(repeat=i) for i in range(5)]
            for request in requests:
                await client.complete(request)
    assert vendor.count == 5
