"""Vendors whose answers are odd: each is kept, or a bad_response; none is another exception."""

import json
from typing import Any

import pytest

from prompts.compat.openai.frames import Frame
from prompts.llm import client
from prompts.llm.providers.base import Completion, Delta, ProviderError, Request
from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.llm.conftest import Ask

pytestmark = pytest.mark.usefixtures("in_memory", "quick_retries")
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def stream_of(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def of_delta(**fields: Any) -> Any:
    return {"choices": [{"delta": {"content": "Hi"} | fields}]}


def of_choice(**fields: Any) -> Any:
    return {"choices": [{"delta": {"content": "Hi"}} | fields]}


async def outcome(request: Request) -> Completion | ProviderError:
    """How it ended; everything that came was put into the words of our own surface, as JSON."""
    frame = Frame("gpt", "1")
    try:
        async for part in client.stream(request):
            if isinstance(part, Delta):
                json.dumps(list(frame.pieces(part)))
            else:
                json.dumps([frame.whole(part), *frame.closing(part, wants_usage=True)])
                return part
    except ProviderError as error:
        return error
    raise AssertionError("a stream ends with its completion")


@pytest.mark.parametrize(
    "chunk",
    [
        7,
        "text",
        [7],
        {"choices": 7},
        {"choices": "text"},
        {"choices": {"index": 0}},
        {"choices": [7]},
        {"choices": [None]},
        {"choices": [[]]},
        of_choice(delta=7),
        of_choice(delta="text"),
        of_choice(delta=[7]),
        of_choice(finish_reason=7),
        of_choice(finish_reason={"why": "stop"}),
        of_delta() | {"model": 7},
        of_delta() | {"usage": 7},
        of_delta() | {"usage": [7]},
        of_delta() | {"usage": {"prompt_tokens_details": 7}},
    ],
    ids=str,
)
async def test_a_chunk_of_another_shape_is_a_bad_response(chunk: Any, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=stream_of(of_delta(), chunk, END))
    ended = await outcome(ask())
    assert isinstance(ended, ProviderError) and ended.code == "bad_response"
    assert vendor.count == 1


@pytest.mark.parametrize(
    "chunk",
    [
        None,
        of_delta(content=7),
        of_delta(content={"text": "x"}),
        of_delta(content=[7, {"text": 7}]),
        of_delta(tool_calls=7),
        of_delta(tool_calls="text"),
        of_delta(tool_calls=[7]),
        of_delta(tool_calls=[None]),
        of_delta(tool_calls=[[]]),
        of_delta(tool_calls=[{}]),
        of_delta(tool_calls=[{"index": 0, "function": 7}]),
        of_delta(tool_calls={"index": 0}),
        of_delta(role=7),
        of_delta(choices=7),
        of_delta(choices=[7]),
        of_delta(logprobs=7),
        of_delta(system_fingerprint=[7]),
        of_choice(logprobs=7),
        of_choice(logprobs={"content": 7}),
        of_choice(delta=None),
        of_delta() | {"usage": {"prompt_tokens": "5", "completion_tokens": -1}},
        of_delta() | {"usage": {"prompt_tokens": 2**70, "completion_tokens": 1.5}},
        of_delta() | {"system_fingerprint": 2**70, "service_tier": {"a": 7}},
        of_delta() | {"error": None},
    ],
    ids=str,
)
async def test_an_odd_field_of_a_chunk_harms_no_answer(chunk: Any, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=stream_of(of_delta(), chunk or {"choices": []}, of_delta(), END))
    ended = await outcome(ask())
    assert isinstance(ended, Completion), ended
    assert ended.text in {"HiHi", "HiHiHi"} and ended.finish_reason == "stop"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"function": 7}, {"function": {"arguments": "x"}}),
        ({"function": {"arguments": 7}}, {"function": {"arguments": "x"}}),
        ({"function": {"arguments": "x"}}, {"function": 7}),
        ({"function": {"arguments": "x"}}, {"function": ["x"]}),
        ({"id": 7}, {"id": "b"}),
    ],
)
async def test_pieces_that_do_not_fit_together_are_put_together_somehow(
    first: Any, then: Any, vendor: FakeVendor, ask: Ask
):
    chunks = [of_delta(tool_calls=[{"index": 0} | piece]) for piece in (first, then)]
    vendor.default = Reply(body=stream_of(*chunks, END))
    ended = await outcome(ask())
    assert isinstance(ended, Completion) and len(ended.extra["tool_calls"]) == 1


async def test_tool_calls_that_have_no_order_are_a_bad_response(vendor: FakeVendor, ask: Ask):
    calls = [{"index": index, "id": "a"} for index in (0, "one", [7])]
    vendor.default = Reply(body=stream_of(of_delta(tool_calls=calls), END))
    ended = await outcome(ask())
    assert isinstance(ended, ProviderError) and ended.code == "bad_response"


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [7]},
        {"choices": {"a": 7}},
        {"choices": [{"message": 7}]},
        {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}, 7]},
        {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}, {"message": 7}]},
    ],
    ids=str,
)
async def test_a_choice_of_another_shape_is_a_bad_response(fields: Any, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=json.dumps(fields).encode())
    ended = await outcome(ask(endpoint_settings={"stream": False}))
    assert isinstance(ended, ProviderError) and ended.code == "bad_response"


START = {"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 5}}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
STOP = ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"})


def of_block(**delta: Any) -> Any:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


@pytest.mark.parametrize(
    "event",
    [
        7,
        [7],
        {"type": "message_start"},
        {"type": "message_start", "message": 7},
        {"type": "message_start", "message": {"usage": 7}},
        {"type": "message_start", "message": {"model": 7}},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_start", "index": 0, "content_block": 7},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}},
        {"type": "content_block_start", "index": [7], "content_block": {"type": "tool_use", "id": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": 7},
        of_block(text=7),
        of_block(thinking=7),
        of_block(partial_json="{"),
        {"type": "message_delta", "delta": 7},
        {"type": "message_delta", "delta": {"stop_reason": 7}},
        {"type": "message_delta", "delta": {}, "usage": [7]},
    ],
    ids=str,
)
async def test_an_event_of_another_shape_is_a_bad_response(event: Any, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=stream_of(START, TEXT, event, *STOP))
    ended = await outcome(ask(endpoint_provider="anthropic"))
    assert isinstance(ended, ProviderError) and ended.code == "bad_response"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 7},
        {"type": ["message_stop"]},
        {"type": "news", "delta": 7},
        of_block(),
        of_block(text=None),
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": "7"}},
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"new": [7]}},
    ],
    ids=str,
)
async def test_an_event_of_a_later_version_harms_no_answer(event: Any, vendor: FakeVendor, ask: Ask):
    vendor.default = Reply(body=stream_of(START, TEXT, event, *STOP))
    ended = await outcome(ask(endpoint_provider="anthropic"))
    assert isinstance(ended, Completion), ended
    assert (ended.text, ended.finish_reason) == ("Hi", "stop")
