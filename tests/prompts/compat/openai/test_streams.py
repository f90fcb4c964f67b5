"""Streams as OpenAI's own SDK reads them: pieces as they come, cached ones, broken ones, abandoned ones."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.compat.openai.conftest import Ask

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stream_is_ordered_as_openais(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    for _ in ("called", "cached"):
        stream = client.chat.completions.create(
            **question, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
            (chunks[0].id, "chat.completion.chunk", "gpt")
        }
        assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
        assert text_of(chunks) == "Hello world"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "stop"]
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 2)
        assert chunks[-1].system_fingerprint == "fp_fake"
    assert vendor.count == 1


def test_without_the_wish_no_usage_is_streamed(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    chunks = list(client.chat.completions.create(**ask(), stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_head_of_a_stream_says_what_proxies_and_people_need(
    client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    raw = client.chat.completions.with_raw_response.create(**ask(), stream=True)
    assert raw.headers["content-type"] == "text/event-stream"
    assert raw.headers["x-accel-buffering"] == "no"
    assert float(raw.headers["x-autoforge-overhead-ms"]) >= 0
    assert raw.headers["x-request-id"].startswith("req_")
    assert text_of(list(raw.parse())) == "Hello world"


def test_a_cached_stream_carries_every_field(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    deltas = ({"tool_calls": [{"index": 0} | CALL]}, {"reasoning_content": "Think."})
    vendor.script(Reply(text="Done", deltas=deltas, finish_reason="tool_calls"))
    question = ask()
    for _ in ("called", "cached"):
        with client.chat.completions.stream(**question) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.content == "Done"
        assert message.tool_calls is not None
        assert message.tool_calls[0].function.arguments == CALL["function"]["arguments"]  # type: ignore[index]
        assert (message.model_extra or {})["reasoning_content"] == "Think."
    assert vendor.count == 1


def test_several_choices_are_streamed_by_their_index(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    body = b"""{"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
        {"index": 1, "message": {"content": "b"}, "finish_reason": "length"}]}"""
    vendor.script(Reply(body=body))
    chunks = list(client.chat.completions.create(**ask(), n=2, stream=True))
    said = [(c.choices[0].index, c.choices[0].delta.content, c.choices[0].finish_reason) for c in chunks]
    assert {(0, "a", None), (0, None, "stop"), (1, "b", None), (1, None, "length")} <= set(said)


def test_the_first_token_does_not_wait_for_the_second(client: OpenAI, ask: Ask) -> None:
    with client.chat.completions.create(**ask() | {"model": "slow"}, stream=True, timeout=10) as stream:
        # The second token is due in 100 s.
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one"]


async def test_a_client_that_leaves_cancels_the_call(options: Any, vendor: FakeVendor, ask: Ask) -> None:
    vendor.default = Reply(chunks=("one", "two", "three"), chunk_delay_s=0.3)
    async with AsyncOpenAI(**options()) as client:
        stream = await client.chat.completions.create(**ask(), stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content == "one":
                break
        await stream.close()
    await asyncio.to_thread(vendor.wait_until, lambda v: v.aborted == 1 and v.in_flight == 0)


def test_a_failure_before_the_first_token_has_a_status(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    vendor.script(Reply(status=503))
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(**ask(), stream=True)
    assert failed.value.status_code == 503


def test_a_stream_that_breaks_raises_in_the_client(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    """No fallback may go on where another model has begun to speak."""
    vendor.script(Reply(error_after=1))
    question = ask()
    stream = client.chat.completions.create(**question, stream=True, extra_body={"fallbacks": ["spare"]})
    chunks = []
    with pytest.raises(openai.APIError, match="the server had an error"):
        for chunk in stream:
            chunks.append(chunk)
    assert text_of(chunks) == "Hello"
    assert vendor.count == 1
    # What broke off was not kept.
    assert text_of(list(client.chat.completions.create(**question, stream=True))) == "Hello world"
    assert vendor.count == 2
