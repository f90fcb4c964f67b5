"""The client against a vendor: answers, streams, retries, bounds, prices, and who is told of them."""

import asyncio
from contextlib import aclosing
from decimal import Decimal

import pytest
from django.test.utils import override_settings

from prompts.llm import client, observers, retries
from prompts.llm.providers.base import Completion, Delta, Prices, ProviderError, Request
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_memory", "quick_retries")
PRICES = Prices(Decimal(2), Decimal(10))


async def collected(request: Request) -> tuple[list[Delta], Completion]:
    """All pieces of a stream and its completion."""
    *deltas, completion = [part async for part in client.stream(request)]
    assert isinstance(completion, Completion)
    assert all(isinstance(delta, Delta) for delta in deltas)
    return deltas, completion


async def failure(request: Request) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await client.complete(request)
    return caught.value


async def test_an_answer_has_text_usage_cost_and_times(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(delay_s=0.03, chunk_delay_s=0.01))
    completion = await client.complete(ask(endpoint_prices=PRICES))
    assert completion.text == "Hello world"
    assert completion.finish_reason == "stop"
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (5, 2)
    assert completion.cost_usd == Decimal("0.00003")
    assert completion.ttft_ms is not None
    assert 30 <= completion.ttft_ms < completion.latency_ms
    assert (completion.attempts, completion.cached, completion.model) == (1, False, "gpt-4o-mini")


async def test_the_vendor_gets_messages_parameters_and_the_key(vendor: FakeVendor, ask: Ask):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    params = {"temperature": 0, "response_format": {"type": "json_object"}, "tools": tools, "grammar": "x"}
    await client.complete(ask(params=params | {"stream": True, "timeout_s": 9}))
    [call] = vendor.calls
    assert call.body == params | {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert call.headers["Authorization"] == "Bearer sk-very-secret"


async def test_a_stream_brings_pieces_as_they_come(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(chunks=("a", "b", "c"), chunk_delay_s=0.05))
    parts = client.stream(ask())
    assert await anext(parts) == Delta("a")
    assert vendor.in_flight == 1
    rest = [part async for part in parts]
    assert rest[:2] == [Delta("b"), Delta("c")]
    assert isinstance(rest[2], Completion)
    assert rest[2].text == "abc"


async def test_on_delta_gets_the_text_from_a_call_and_from_the_cache(ask: Ask):
    pieces: list[str] = []

    async def keep(piece: str) -> None:
        await asyncio.sleep(0)
        pieces.append(piece)

    await client.complete(ask(), on_delta=keep)
    assert pieces == ["Hello", " world"]
    await client.complete(ask(), on_delta=pieces.append)
    assert pieces[2:] == ["Hello world"]


async def test_an_endpoint_that_cannot_stream_is_asked_in_one_piece(vendor: FakeVendor, ask: Ask):
    deltas, completion = await collected(ask(endpoint_settings={"stream": False}))
    assert "stream" not in vendor.calls[0].body
    assert [delta.text for delta in deltas] == ["Hello world"]
    assert completion.ttft_ms is None


async def test_several_choices_come_in_one_piece(vendor: FakeVendor, ask: Ask):
    completion = await client.complete(ask(params={"n": 2}))
    assert "stream" not in vendor.calls[0].body
    assert completion.text == "Hello world"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_a_passing_failure_is_tried_again(status: int, vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=status), Reply(status=status))
    completion = await client.complete(ask())
    assert (completion.text, completion.attempts) == ("Hello world", 3)
    assert vendor.count == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (401, "authentication"),
        (403, "authentication"),
        (404, "not_found"),
        (422, "invalid_request"),
        (302, "invalid_request"),
    ],
)
async def test_a_lasting_failure_is_not_tried_again(status: int, code: str, vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=status, headers={"Location": f"{vendor.url}/stats"}))
    error = await failure(ask())
    assert (error.code, error.status, error.is_retryable) == (code, status, False)
    assert vendor.count == 1


async def test_a_quota_that_is_used_up_is_not_tried_again(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=429, error={"message": "You are out of credit", "code": "insufficient_quota"}))
    error = await failure(ask())
    assert error.code == "quota_exceeded"
    assert "out of credit" in error.message
    assert vendor.count == 1


async def test_the_vendor_may_forbid_another_attempt(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=500, headers={"x-should-retry": "false"}))
    await failure(ask())
    assert vendor.count == 1


async def test_attempts_are_bounded(vendor: FakeVendor, ask: Ask, observed: list):
    vendor.default = Reply(status=500)
    with override_settings(MODEL_MAX_ATTEMPTS=3):
        error = await failure(ask())
    assert (error.code, error.status) == ("unavailable", 500)
    assert vendor.count == 3
    assert [outcome.status for _, outcome, _ in observed] == [500, 500, 500]


async def test_retry_after_is_honoured(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=429, headers={"Retry-After": "0.2"}))
    completion = await client.complete(ask())
    first, second = vendor.calls
    assert second.at - first.at >= 0.2
    assert completion.queued_ms >= 200 > completion.latency_ms


async def test_a_vendor_that_wants_too_long_a_wait_gets_no_other_call(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=429, headers={"retry-after-ms": "86400000"}))
    error = await failure(ask())
    assert (error.code, error.retry_after_s) == ("rate_limited", 86400)
    assert vendor.count == 1


async def test_a_call_without_an_answer_ends_in_time(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=30)
    with override_settings(MODEL_MAX_ATTEMPTS=2):
        error = await failure(ask(params={"timeout_s": 0.1}))
    assert (error.code, vendor.count) == ("timeout", 2)
    vendor.wait_until(lambda state: state.in_flight == 0)


async def test_a_stream_that_stalls_ends_in_time(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(chunks=("a", "b"), chunk_delay_s=0.2)
    with override_settings(MODEL_TIMEOUT_S=0.3, MODEL_MAX_ATTEMPTS=1):
        assert (await failure(ask())).code == "timeout"


async def test_a_timeout_must_be_a_number(vendor: FakeVendor, ask: Ask):
    assert (await failure(ask(params={"timeout_s": "soon"}))).code == "invalid_request"
    assert vendor.count == 0


@pytest.mark.parametrize(
    "broken",
    [Reply(break_after=1), Reply(break_after=2), Reply(end_early=True), Reply(error_after=1)],
    ids=["cut", "cut before the end", "without a finish reason", "error event"],
)
async def test_a_broken_stream_is_tried_again_and_never_stored(broken: Reply, vendor: FakeVendor, ask: Ask):
    vendor.script(broken)
    completion = await client.complete(ask())
    assert (completion.text, completion.attempts) == ("Hello world", 2)
    vendor.default = broken
    with override_settings(MODEL_MAX_ATTEMPTS=1):
        assert (await failure(ask("another"))).code == "unavailable"
    vendor.default = Reply()
    assert not (await client.complete(ask("another"))).cached


async def test_a_broken_stream_is_not_tried_again_once_it_was_read(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(break_after=1, chunk_delay_s=0.02)
    pieces = []
    with pytest.raises(ProviderError) as caught:
        async for part in client.stream(ask()):
            pieces.append(part)
    assert (pieces, caught.value.code, vendor.count) == ([Delta("Hello")], "unavailable", 1)


async def test_a_failure_before_the_first_piece_of_a_stream_is_tried_again(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=503))
    deltas, completion = await collected(ask())
    assert ("".join(delta.text for delta in deltas), completion.attempts) == ("Hello world", 2)


async def test_a_vendor_that_is_not_there_is_unavailable(ask: Ask):
    with override_settings(MODEL_MAX_ATTEMPTS=2):
        error = await failure(ask(endpoint_base_url="http://127.0.0.1:9/v1"))
    assert (error.code, error.is_retryable) == ("unavailable", True)
    assert "fake" in error.message


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_an_answer_is_bounded(is_streamed: bool, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(text="word " * 20_000)
    with override_settings(MODEL_MAX_OUTPUT_BYTES=50_000):
        error = await failure(ask(endpoint_settings={} if is_streamed else {"stream": False}))
    assert error.code == "bad_response"
    assert vendor.count == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [1]}', b"null"])
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_nonsense_is_a_bad_response(body: bytes, is_streamed: bool, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=b"data: " + body + b"\n\n" if is_streamed else body)
    with override_settings(MODEL_MAX_ATTEMPTS=1):
        error = await failure(ask(endpoint_settings={} if is_streamed else {"stream": False}))
    assert error.code in {"bad_response", "unavailable"}


async def test_the_secret_never_shows(vendor: FakeVendor, ask: Ask):
    vendor.script(Reply(status=401, error={"message": "Incorrect API key provided: sk-very-secret"}))
    request = ask()
    error = await failure(request)
    assert "sk-very-secret" not in f"{error} {error!r} {request!r} {request.endpoint!r}"
    malformed = await failure(ask(endpoint_api_key="sk-very\nsecret"))
    assert (malformed.code, "sk-very" in str(malformed)) == ("invalid_request", False)


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://x/v1", "http://[::1"])
async def test_a_wrong_base_url_is_an_invalid_request(url: str, ask: Ask):
    with override_settings(MODEL_MAX_ATTEMPTS=1):
        assert (await failure(ask(endpoint_base_url=url))).code in {"invalid_request", "unavailable"}


async def test_an_unknown_provider_is_an_invalid_request(ask: Ask):
    error = await failure(ask(endpoint_provider="nobody"))
    assert (error.code, "openai" in error.message) == ("invalid_request", True)


async def test_a_client_that_leaves_in_mid_stream_ends_the_upstream_call(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(text="a " * 1_000, chunk_delay_s=0.02)
    async with aclosing(client.stream(ask())) as parts:
        await anext(parts)
        assert vendor.in_flight == 1
    await asyncio.to_thread(vendor.wait_until, lambda state: state.aborted == 1)
    assert vendor.in_flight == 0


async def test_a_cancelled_completion_ends_the_upstream_call(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(delay_s=30)
    waiting = asyncio.create_task(client.complete(ask()))
    await asyncio.to_thread(vendor.wait_until, lambda state: state.in_flight == 1)
    waiting.cancel()
    await asyncio.to_thread(vendor.wait_until, lambda state: state.aborted == 1)


async def test_observers_hear_of_calls_and_look_ups_and_harm_nobody(ask: Ask, observed: list):
    hits: list[bool] = []

    def keep(hit: bool) -> None:
        hits.append(hit)
        raise RuntimeError

    observers.on_cache.append(keep)
    try:
        for _ in range(2):
            await client.complete(ask())
    finally:
        observers.on_cache.remove(keep)
    assert hits == [False, True]
    [(request, outcome, seconds)] = observed
    assert (request.endpoint.name, outcome.text) == ("fake", "Hello world")
    assert seconds > 0


def test_backoff_is_jittered_and_bounded():
    error = ProviderError("unavailable", "no.", is_retryable=True)
    with override_settings(MODEL_MAX_ATTEMPTS=100):
        delays = [retries.retry_delay_s(error, 50) for _ in range(200)]
        assert all(delay is not None and 0 <= delay <= retries.BACKOFF_MAX_S for delay in delays)
        assert len(set(delays)) > 100
        patient = ProviderError("rate_limited", "no.", retry_after_s=3, is_retryable=True)
        assert all((retries.retry_delay_s(patient, 1) or 0) >= 3 for _ in range(50))
    assert retries.retry_delay_s(ProviderError("invalid_request", "no."), 1) is None


def test_sessions_end_with_their_loop(vendor: FakeVendor, ask: Ask, recwarn: pytest.WarningsRecorder):
    # Runs of other tests have a loop of their own, which does not end.
    before = set(client._private_sessions._open)
    for number in range(3):
        asyncio.run(client.complete(ask(repeat=number)))
    assert vendor.count == 3
    assert set(client._private_sessions._open) == before
    assert not [warning for warning in recwarn if "Unclosed" in str(warning.message)]


async def test_the_session_can_be_closed_and_opens_again(ask: Ask):
    await client.complete(ask())
    await client.close()
    assert (await client.complete(ask(repeat=1))).text == "Hello world"
