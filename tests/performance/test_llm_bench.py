"""What a completion costs this process: from the cache, over HTTP, and the rendering before it."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest
from django.conf import settings
from django.test.utils import override_settings

from prompts.llm import client, ledger
from prompts.llm.cache import key_of, response_cache
from prompts.llm.providers.base import Endpoint, Limits, Request
from prompts.llm.providers.sse import EventParser
from prompts.rendering import render
from tests.fake_vendor import fake_vendor

pytestmark = [
    pytest.mark.benchmark(group="model calls"),
    pytest.mark.usefixtures("private_endpoints_allowed"),
]
CALLS = 200
AT_ONCE = 50

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines in one event loop, so that connections stay open between rounds."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "redis" and not settings.REDIS_URL:
        pytest.skip("REDIS_URL is not set")
    with override_settings(REDIS_URL=settings.REDIS_URL if request.param == "redis" else ""):
        response_cache.cache_clear()
        ledger.ledger.cache_clear()
        yield
    response_cache.cache_clear()
    ledger.ledger.cache_clear()


@pytest.fixture
def requests() -> Iterator[list[Request]]:
    """CALLS different questions to a vendor that answers at once."""
    with fake_vendor() as vendor:
        endpoint = Endpoint(uuid.uuid4().hex, "fake", "openai", "m", base_url=vendor.base_url, api_key="sk")
        yield [Request(endpoint, ({"role": "user", "content": f"{n} " * 50},)) for n in range(CALLS)]


async def ask_all(requests: list[Request]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask(request: Request) -> None:
        async with slots:
            assert (await client.complete(request)).text == "Hello world"

    await asyncio.gather(*map(ask, requests))


def test_cached_completions(benchmark: Any, run: Run, store: None, requests: list[Request]):
    run(ask_all(requests))
    benchmark(lambda: run(ask_all(requests)))


@pytest.mark.parametrize("settings", [{}, {"stream": False}], ids=["streamed", "whole"])
def test_completions_over_http(benchmark: Any, run: Run, requests: list[Request], settings: dict[str, Any]):
    endpoint = msgspec.structs.replace(requests[0].endpoint, settings=settings)
    uncached = [msgspec.structs.replace(r, endpoint=endpoint, cache="no-store") for r in requests]
    run(ask_all(uncached[:AT_ONCE]))
    benchmark.pedantic(lambda: run(ask_all(uncached)), rounds=5)


def test_admission_by_limits(benchmark: Any, run: Run, store: None, requests: list[Request]):
    limits = Limits(requests_per_min=10**9, tokens_per_min=10**9, max_concurrency=10**6)
    endpoint = msgspec.structs.replace(requests[0].endpoint, limits=limits)

    async def reserve_all() -> None:
        for _ in range(CALLS):
            held = await ledger.ledger().reserve(endpoint, 10, 60)
            assert held is not None
            await ledger.ledger().settle(endpoint, held, 8, is_called=True)

    benchmark(lambda: run(reserve_all()))


def test_the_key_of_a_request(benchmark: Any, requests: list[Request]):
    assert len(benchmark(key_of, requests[0])) == 64


def test_parsing_a_stream_of_1000_tokens(benchmark: Any):
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
    chunks = [chunk] * 1_000

    def parse() -> int:
        parser = EventParser()
        return sum(len(parser.feed(chunk)) for chunk in chunks)

    assert benchmark(parse) == 1_000


def test_rendering_a_prompt(benchmark: Any):
    template = [
        {"role": "system", "content": "Classify the text as positive or negative."},
        {"role": "user", "content": "{{ input }}"},
    ]
    messages = benchmark(lambda: render(template, "chat", {"input": "I liked it very much. " * 10}))
    assert messages[1]["content"].startswith("I liked it")
