"""Completions over a WebSocket: many at once, token by token, until somebody has enough."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import msgspec
import pytest

from autoforge.db.errors import PoolExhausted
from realtime import completions
from realtime.frames import Complete, Frame
from tests.realtime.clients import WebProcess

HELLO = [{"role": "user", "content": "x"}]


def text_of(messages: list[dict[str, Any]], id: str) -> str:
    return "".join(each["text"] for each in messages if each["type"] == "token" and each["id"] == id)


def complete_over_rest(server: WebProcess, secret: str, question: dict[str, Any]) -> Any:
    """The same question over REST."""
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    return server.request("POST", "/api/v1/completions", msgspec.json.encode(question), **headers)


async def test_completions_are_multiplexed(server: WebProcess) -> None:
    words = "the quick brown fox jumps over the lazy dog and runs on and on"
    async with server.connect() as client:
        for id in ("a", "b", "c"):
            messages = [{"role": "user", "content": f"{id} {time.time_ns()} {words}"}]
            await client.send("complete", id=id, model="echo", messages=messages)
        seen: list[dict[str, Any]] = []
        while sum(each["type"] == "completed" for each in seen) < 3:
            seen.append(await client.next())
    completed = {each["id"]: each for each in seen if each["type"] == "completed"}
    for id, answer in completed.items():
        assert words in answer["text"] and answer["text"] == text_of(seen, id)
        assert answer["tokens"]["output"] > 0 and answer["cached"] is False
        assert answer["finish_reason"] == "stop" and answer["latency_ms"] > 0
    # Tokens come in batches, and those of several completions between each other.
    order = [each["id"] for each in seen if each["type"] == "token"]
    assert order != sorted(order)


async def test_the_same_question_again_is_cached(server: WebProcess) -> None:
    messages = [{"role": "user", "content": f"hello {time.time_ns()}"}]
    async with server.connect() as client:
        for id, cached in (("first", False), ("second", True)):
            await client.send("complete", id=id, model="echo", messages=messages)
            answer = (await client.until("completed"))[-1]
            assert (answer["id"], answer["cached"]) == (id, cached)


async def test_cancelling_stops_the_tokens(server: WebProcess) -> None:
    async with server.connect() as client:
        await client.send("complete", id="c1", model="slow", messages=[{"role": "user", "content": "x"}])
        await client.expect("token")
        await client.send("cancel", id="c1")
        assert (await client.until("cancelled"))[-1]["id"] == "c1"
        await asyncio.sleep(0.3)
        await client.send("ping")
        await client.expect("pong")
        # The id is free again.
        await client.send("complete", id="c1", model="slow", messages=[{"role": "user", "content": "x"}])
        await client.expect("token")


async def test_cancelled_before_it_began(server: WebProcess) -> None:
    async with server.connect() as client:
        await client.send("complete", id="c1", model="slow", messages=[{"role": "user", "content": "x"}])
        await client.send("cancel", id="c1")
        await client.until("cancelled")


async def test_an_id_under_way_is_refused(server: WebProcess) -> None:
    async with server.connect() as client:
        for _ in range(2):
            await client.send("complete", id="c1", model="slow", messages=[{"role": "user", "content": "x"}])
        refused = (await client.until("error"))[-1]
        assert (refused["code"], refused["id"]) == ("duplicate_id", "c1")


async def test_completions_at_once_are_bounded(server: WebProcess) -> None:
    async with server.connect() as client:
        for number in range(17):
            messages = [{"role": "user", "content": str(number)}]
            await client.send("complete", id=f"c{number}", model="slow", messages=messages)
        refused = (await client.until("error"))[-1]
        assert (refused["code"], refused["id"]) == ("too_many_completions", "c16")


async def test_failures_are_told_with_their_id(server: WebProcess) -> None:
    asked: dict[str, dict[str, Any]] = {
        "not_found": {"model": "nobody", "messages": [{"role": "user", "content": "x"}]},
        "invalid": {"model": "echo"},
    }
    async with server.connect() as client:
        for code, fields in asked.items():
            await client.send("complete", id=code, **fields)
            failed = await client.expect("failed")
            assert (failed["id"], failed["code"]) == (code, code)
            assert failed["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "text": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": HELLO, "vars": {"a": 1}},
        {"messages": HELLO, "params": {"stream": True}},
        {"messages": HELLO, "temperature": 1},
        {"messages": HELLO, "model": None},
        {"prompt": "none"},
        {},
    ],
    ids=str,
)
async def test_what_rest_refuses_is_refused_with_the_same_sentence(
    server: WebProcess, world: dict[str, Any], fields: dict[str, Any]
) -> None:
    asked = {"model": "echo"} | fields
    with pytest.raises(HTTPError) as over_rest:
        await asyncio.to_thread(complete_over_rest, server, world["editor"], asked)
    problem = msgspec.json.decode(over_rest.value.read())
    async with server.connect() as client:
        await client.send("complete", id="c1", **asked)
        refused = await client.next()
    assert refused["type"] in ("error", "failed") and refused["id"] == "c1"
    assert (refused["code"], refused["detail"]) == (problem["code"], problem["detail"])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"version": 0}, "version: Expected int >= 1."),
        ({"version": 2**31}, "version: Expected int <= 2147483647."),
        ({"label": "a\0b"}, "The frame holds the character U+0000, which cannot be stored: remove it."),
        ({"vars": {"a": ["\0"]}}, "The frame holds the character U+0000, which cannot be stored: remove it."),
    ],
    ids=str,
)
async def test_what_no_column_holds_is_refused(
    server: WebProcess, fields: dict[str, Any], sentence: str
) -> None:
    async with server.connect() as client:
        await client.send("complete", id="c1", model="echo", prompt="p", **fields)
        refused = await client.expect("error")
    assert (refused["id"], refused["code"], refused["detail"]) == ("c1", "invalid", sentence)


async def test_a_message_is_sent_without_what_was_left_out(server: WebProcess) -> None:
    messages = [{"role": "user", "content": "one \\u0000 two", "name": "ada"}]
    async with server.connect() as client:
        await client.send("complete", id="c1", model="echo", messages=messages)
        assert (await client.until("completed"))[-1]["text"] == "one \\u0000 two"


async def test_a_viewer_may_not_spend_money(server: WebProcess) -> None:
    async with server.connect("viewer") as client:
        await client.send("complete", id="c1", model="echo", messages=[{"role": "user", "content": "x"}])
        assert (await client.expect("failed"))["code"] == "forbidden"


async def test_a_keys_budget_holds_here_too(server: WebProcess) -> None:
    messages = [{"role": "user", "content": f"hello {time.time_ns()}"}]
    async with server.connect("broke") as client:
        await client.send("complete", id="c1", model="priced", messages=messages)
        assert (await client.expect("failed"))["code"] == "budget_spent"
        await client.send("complete", id="c2", model="echo", messages=messages)
        await client.until("completed")


async def test_a_keys_requests_a_minute_are_counted_with_those_over_rest(
    server: WebProcess, world: dict[str, Any]
) -> None:
    question = {"model": "echo", "messages": HELLO}
    assert (await asyncio.to_thread(complete_over_rest, server, world["hasty"], question))["text"] == "x"
    async with server.connect("hasty") as client:
        for id in ("c1", "c2"):
            await client.send("complete", id=id, **question)
            await client.until("completed")
        await client.send("complete", id="c3", **question)
        refused = await client.expect("failed")
        assert (refused["id"], refused["code"]) == ("c3", "rate_limited")
        assert refused["detail"].startswith("More than 3 a minute (key): try again in ")
        with pytest.raises(HTTPError, match="429"):
            await asyncio.to_thread(complete_over_rest, server, world["hasty"], question)
        # Everything else goes on.
        await client.subscribe("prompts")


@pytest.mark.parametrize(
    ("error", "code"), [(PoolExhausted("all in use"), "unavailable"), (ZeroDivisionError(), "server_error")]
)
async def test_who_may_try_again_is_told_so(
    error: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Frame] = []

    async def fail(_policies: object) -> None:
        raise error

    monkeypatch.setattr(completions, "admit_async", fail)
    monkeypatch.setattr(completions, "policies_for", lambda *_: ())
    connection: Any = SimpleNamespace(actor=None, offer=told.append)
    await completions.stream_completion(connection, Complete(id="c1", model="echo"))
    (answer,) = map(msgspec.json.decode, told[0].texts)
    assert (answer["type"], answer["id"], answer["code"]) == ("failed", "c1", code)
