"""The simulated model: the same question has the same answer, latency and failure."""

import time
from typing import Any

import msgspec
import pytest

from prompts.llm import client
from prompts.llm.providers.base import Completion, Endpoint, ProviderError, Request

pytestmark = pytest.mark.usefixtures("in_memory")


def ask(
    question: str = "one two three", *, repeat: int = 0, name: str = "sim", **settings: object
) -> Request:
    params = settings.pop("params", {})
    expected = settings.pop("expected", None)
    endpoint = Endpoint("p", name, "simulated", "sim-1", settings=settings)
    message = {"role": "user", "content": question}
    return Request(endpoint, (message,), params, repeat, expected, cache="no-store")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "one two three"),
        ({"output": "echo"}, "one two three"),
        ({"output": "expected", "expected": "yes"}, "yes"),
        ({"output": "expected"}, "one two three"),
        ({"output": "always this"}, "always this"),
    ],
)
async def test_outputs(settings: dict, text: str):
    completion = await client.complete(ask(**settings))
    assert (completion.text, completion.finish_reason, completion.cost_usd) == (text, "stop", 0)
    assert completion.usage.input_tokens == 3


async def test_an_output_is_cut_at_the_maximum():
    completion = await client.complete(ask(params={"max_tokens": 2}))
    assert (completion.text, completion.finish_reason) == ("one two", "length")


async def test_latency_and_speed():
    started = time.perf_counter()
    completion = await client.complete(ask(latency_ms=60, tokens_per_s=50))
    assert time.perf_counter() - started >= 0.1
    assert completion.ttft_ms is not None
    assert completion.ttft_ms >= 60
    assert completion.latency_ms >= 100


async def test_a_stream_brings_tokens_one_by_one():
    *deltas, completion = [part async for part in client.stream(ask(tokens_per_s=200))]
    assert [delta.text for delta in deltas] == ["one", " two", " three"]
    assert isinstance(completion, Completion)


async def failed(request: Request) -> bool:
    try:
        await client.complete(request)
    except ProviderError as error:
        assert (error.code, error.is_retryable) == ("unavailable", False)
        return True
    return False


async def test_failures_are_as_frequent_as_set_and_always_the_same():
    first = [await failed(ask(repeat=number, error_rate=0.3)) for number in range(200)]
    assert 35 <= sum(first) <= 85
    assert [await failed(ask(repeat=number, error_rate=0.3)) for number in range(200)] == first


async def test_every_nth_call_is_refused_and_tried_again():
    answers = [await client.complete(ask(repeat=n, name="limited", rate_limit_every=3)) for n in range(4)]
    assert [answer.attempts for answer in answers] == [1, 1, 2, 1]


async def test_a_timeout_holds(settings):
    settings.MODEL_MAX_ATTEMPTS = 1
    with pytest.raises(ProviderError) as caught:
        await client.complete(ask(latency_ms=60_000, params={"timeout_s": 0.05}))
    assert caught.value.code == "timeout"


async def test_parts_without_text_are_passed_over():
    parts = [
        {"type": "text", "text": 5},
        {"type": "text", "text": "heard"},
        {"type": "image_url", "text": None},
    ]
    request = msgspec.structs.replace(ask(), messages=({"role": "user", "content": parts},))
    assert (await client.complete(request)).text == "heard"


@pytest.mark.parametrize("maximum", ["5", 0, -1, 1.5, True, [1], {"a": 1}])
async def test_a_maximum_that_is_none_is_refused(maximum: Any):
    with pytest.raises(ProviderError, match="max_tokens must be a whole number above 0") as caught:
        await client.complete(ask(params={"max_tokens": maximum, "n": [1]}))
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("wrong", [{"latency": 3}, {"latency_ms": "soon"}])
async def test_wrong_settings_are_named(wrong: dict):
    with pytest.raises(ProviderError, match="latency") as caught:
        await client.complete(ask(**wrong))
    assert caught.value.code == "invalid_request"
