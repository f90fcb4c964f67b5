"""OpenAI's protocol: streams as servers really send them, every further field, usage details."""

import pytest

from prompts.llm import client
from prompts.llm.providers.base import Completion, Delta, ProviderError
from prompts.llm.providers.merging import as_delta, merge_delta, without_index
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_memory", "quick_retries")
USAGE = {
    "prompt_tokens": 50,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 12},
}


@pytest.mark.parametrize("split", [None, 1, 7, 64])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_a_stream_is_read_however_it_is_cut(
    split: int | None, newline: str, vendor: FakeVendor, ask: Ask
):
    vendor.default = Reply(chunks=("Grüße", ", ", "世界"), split=split, newline=newline, comments=True)
    parts = [part async for part in client.stream(ask())]
    assert [part.text for part in parts] == ["Grüße", ", ", "世界", "Grüße, 世界"]


async def test_a_server_that_forgets_done_is_understood(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(has_done=False)
    assert (await client.complete(ask())).finish_reason == "stop"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_streamed_call_leaves_its_connection_to_the_next(provider: str, vendor: FakeVendor, ask: Ask):
    for number in range(5):
        await client.complete(ask(f"question {number}", endpoint_provider=provider))
    assert (vendor.count, len(vendor.connections)) == (5, 1)


@pytest.mark.parametrize("settings", [{}, {"stream": False}], ids=["streamed", "whole"])
async def test_details_of_the_usage_are_kept(settings: dict, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(usage=USAGE, finish_reason="length")
    completion = await client.complete(ask(endpoint_settings=settings))
    usage = completion.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (50, 20, 70)
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (30, 12)
    assert completion.finish_reason == "length"


@pytest.mark.parametrize("settings", [{}, {"stream": False}], ids=["streamed", "whole"])
async def test_usage_that_is_not_told_is_unknown(settings: dict, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(usage=None)
    completion = await client.complete(ask(endpoint_settings=settings))
    assert (completion.usage.input_tokens, completion.usage.total_tokens) == (None, None)
    assert completion.cost_usd is None


async def test_a_tool_call_comes_the_same_streamed_and_whole(vendor: FakeVendor, ask: Ask):
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q":1}'}}
    vendor.script(
        Reply(chunks=(), message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls"),
        Reply(
            chunks=(),
            deltas=(
                {"tool_calls": [{"index": 0} | call | {"function": {"name": "look", "arguments": ""}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '{"q"'}}]},
                {"tool_calls": [{"index": 0, "id": "", "function": {"arguments": ":1}"}}]},
            ),
            finish_reason="tool_calls",
        ),
    )
    whole = await client.complete(ask(endpoint_settings={"stream": False}, repeat=1))
    *deltas, streamed = [part async for part in client.stream(ask(repeat=2))]
    assert isinstance(streamed, Completion)
    assert whole.text == streamed.text == ""
    assert whole.extra == streamed.extra == {"system_fingerprint": "fp_fake", "tool_calls": [call]}
    assert all(isinstance(delta, Delta) and delta.extra and "tool_calls" in delta.extra for delta in deltas)


async def test_content_in_parts_is_text(vendor: FakeVendor, ask: Ask):
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "parts"}]
    vendor.default = Reply(message={"content": parts})
    assert (await client.complete(ask(endpoint_settings={"stream": False}))).text == "Hello parts"


@pytest.mark.parametrize(
    ("error", "code", "is_retryable"),
    [
        ({"message": "too long", "code": "context_length_exceeded"}, "invalid_request", False),
        ({"message": "slow down", "type": "rate_limit_error"}, "rate_limited", True),
        ({"message": "no", "code": "content_filter"}, "content_filter", False),
        ("just a text", "unavailable", True),
    ],
)
async def test_an_error_in_a_successful_stream(
    error: object, code: str, is_retryable: bool, vendor: FakeVendor, ask: Ask, settings
):
    import json

    settings.MODEL_MAX_ATTEMPTS = 1
    vendor.default = Reply(body=f"data: {json.dumps({'error': error})}\n\n".encode())
    with pytest.raises(ProviderError) as caught:
        await client.complete(ask())
    assert (caught.value.code, caught.value.is_retryable) == (code, is_retryable)


async def test_a_refusal_for_its_content_is_named(vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(status=400, error={"message": "filtered", "code": "content_filter"})
    with pytest.raises(ProviderError) as caught:
        await client.complete(ask())
    assert caught.value.code == "content_filter"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error": {"message": "bad model"}}', "bad model"),
        (b'{"detail": "no such route"}', "no such route"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>Bad gateway</html>", "Bad gateway"),
        (b"", "status 400"),
    ],
)
async def test_what_the_vendor_said_is_in_the_sentence(
    body: bytes, sentence: str, vendor: FakeVendor, ask: Ask
):
    vendor.default = Reply(status=400, body=body)
    with pytest.raises(ProviderError, match=sentence):
        await client.complete(ask())


def test_deltas_are_merged_by_index():
    total: dict = {}
    for piece in [
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "1"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}}]},
        {"reasoning": "x", "logprobs": {"content": [{"token": "a"}]}},
        {"reasoning": "y", "logprobs": {"content": [{"token": "b"}]}},
    ]:
        merge_delta(total, piece)
    merged = without_index(total)
    assert merged == {
        "tool_calls": [
            {"id": "a", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "function": {"name": "g", "arguments": "1"}},
        ],
        "reasoning": "xy",
        "logprobs": {"content": [{"token": "a"}, {"token": "b"}]},
    }
    assert [call["index"] for call in as_delta(merged)["tool_calls"]] == [0, 1]
