"""Anthropic's Messages API behind OpenAI's words."""

import pytest

from prompts.llm import client
from prompts.llm.providers.anthropic_request import DEFAULT_MAX_TOKENS
from prompts.llm.providers.base import Completion, Delta, ProviderError, Request
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_memory", "quick_retries")
END = Reply(finish_reason="end_turn")
BOTH = pytest.mark.parametrize("settings", [{}, {"stream": False}], ids=["streamed", "whole"])


@pytest.fixture
def ask_claude(ask: Ask, vendor: FakeVendor) -> Ask:
    vendor.default = END

    def request_of(question: str = "hi", **changes: object) -> Request:
        return ask(question, endpoint_provider="anthropic", endpoint_model="claude-x", **changes)

    return request_of


@BOTH
async def test_an_answer(settings: dict, vendor: FakeVendor, ask_claude: Ask):
    completion = await client.complete(ask_claude(endpoint_settings=settings))
    assert (completion.text, completion.finish_reason, completion.model) == (
        "Hello world",
        "stop",
        "claude-x",
    )
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (5, 2)
    [call] = vendor.calls
    assert (call.path, call.headers["x-api-key"]) == ("/v1/messages", "sk-very-secret")
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in call.headers


async def test_a_stream(vendor: FakeVendor, ask_claude: Ask):
    parts = [part async for part in client.stream(ask_claude())]
    assert parts[:2] == [Delta("Hello"), Delta(" world")]
    assert isinstance(parts[2], Completion)
    assert parts[2].ttft_ms is not None


async def test_a_base_url_without_its_version(vendor: FakeVendor, ask_claude: Ask):
    assert (await client.complete(ask_claude(endpoint_base_url=vendor.url))).text == "Hello world"


async def test_the_request_in_the_vendors_words(vendor: FakeVendor, ask_claude: Ask):
    function = {"name": "look", "arguments": '{"q": 1}'}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    link = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = (
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image, link]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
    )
    schema = {"type": "object", "properties": {"q": {"type": "integer"}}}
    params = {
        "temperature": 0,
        "stop": "END",
        "seed": 7,
        "max_completion_tokens": 99,
        "user": "u1",
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "d", "parameters": schema}}
        ],
        "tool_choice": "required",
    }
    await client.complete(ask_claude(messages=messages, params=params))
    assert vendor.calls[0].body == {
        "model": "claude-x",
        "stream": True,
        "max_tokens": 99,
        "temperature": 0,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "tools": [{"name": "look", "description": "d", "input_schema": schema}],
        "tool_choice": {"type": "any"},
        "system": "Be kind.\n\nBe brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": 1}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a cat"}],
            },
        ],
    }


async def test_a_maximum_is_set_where_the_request_has_none(vendor: FakeVendor, ask_claude: Ask):
    await client.complete(ask_claude())
    assert vendor.calls[0].body["max_tokens"] == DEFAULT_MAX_TOKENS


@pytest.mark.parametrize("message", [{"content": "x"}, {"role": "tool", "content": "x"}])
async def test_a_message_of_another_shape_is_an_invalid_request(
    message: dict, vendor: FakeVendor, ask_claude: Ask
):
    with pytest.raises(ProviderError) as caught:
        await client.complete(ask_claude(messages=(message,)))
    assert (caught.value.code, vendor.count) == ("invalid_request", 0)


@pytest.mark.parametrize(
    ("reason", "known_as"),
    [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter"), ("new", "new")],
)
async def test_finish_reasons(reason: str, known_as: str, vendor: FakeVendor, ask_claude: Ask):
    vendor.default = Reply(finish_reason=reason)
    assert (await client.complete(ask_claude())).finish_reason == known_as


async def test_tools_and_thinking_streamed(vendor: FakeVendor, ask_claude: Ask):
    tool = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    vendor.default = Reply(
        text="",
        chunks=(),
        deltas=(
            {
                "type": "content_block_delta",
                "index": 5,
                "delta": {"type": "thinking_delta", "thinking": "Hm."},
            },
            {"type": "content_block_start", "index": 6, "content_block": tool},
            {
                "type": "content_block_delta",
                "index": 6,
                "delta": {"type": "input_json_delta", "partial_json": '{"q"'},
            },
            {
                "type": "content_block_delta",
                "index": 6,
                "delta": {"type": "input_json_delta", "partial_json": ": 1}"},
            },
        ),
        finish_reason="tool_use",
    )
    completion = await client.complete(ask_claude())
    assert completion.finish_reason == "tool_calls"
    assert completion.extra == {
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}
        ],
    }


async def test_tools_and_cached_tokens_whole(vendor: FakeVendor, ask_claude: Ask):
    tool = {"type": "tool_use", "id": "t1", "name": "look", "input": {"q": 1}}
    usage = {
        "input_tokens": 1,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 100,
        "output_tokens": 3,
    }
    vendor.default = Reply(message={"content": [tool]}, usage=usage, finish_reason="tool_use")
    completion = await client.complete(ask_claude(endpoint_settings={"stream": False}))
    assert completion.extra["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"q":1}'}
    counted = completion.usage
    assert (counted.input_tokens, counted.cached_input_tokens, counted.cache_write_tokens) == (111, 10, 100)


@pytest.mark.parametrize(
    "broken", [Reply(error_after=1), Reply(break_after=1), Reply(end_early=True), Reply(status=529)]
)
async def test_a_broken_answer_is_tried_again(broken: Reply, vendor: FakeVendor, ask_claude: Ask):
    vendor.script(broken)
    completion = await client.complete(ask_claude())
    assert (completion.text, completion.attempts) == ("Hello world", 2)


@pytest.mark.parametrize("body", [b"{}", b'{"content": 1}', b'{"content": [1], "stop_reason": "end_turn"}'])
async def test_nonsense_is_no_answer(body: bytes, vendor: FakeVendor, ask_claude: Ask, settings):
    settings.MODEL_MAX_ATTEMPTS = 1
    vendor.default = Reply(body=body)
    with pytest.raises(ProviderError):
        await client.complete(ask_claude(endpoint_settings={"stream": False}))


async def test_an_error_object_in_a_successful_answer(vendor: FakeVendor, ask_claude: Ask):
    vendor.default = Reply(
        body=b'{"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}'
    )
    with pytest.raises(ProviderError, match="no") as caught:
        await client.complete(ask_claude(endpoint_settings={"stream": False}))
    assert caught.value.code == "invalid_request"
