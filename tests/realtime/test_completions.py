"""Completions over a WebSocket: many at once, token by token, until somebody has enough."""

import asyncio
import time
from typing import Any
from urllib.error import HTTPError

import msgspec
import pytest

from tests.realtime.clients import WebProcess


def text_of(messages: list[dict[str, Any]], id: str) -> str:
    return "".join(each["text"] for each in messages if each["type"] == "token" and each["id"] == id)


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
    question = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}

    def over_rest() -> Any:
        headers = {"Authorization": f"Bearer {world['hasty']}", "Content-Type": "application/json"}
        return server.request("POST", "/api/v1/completions", msgspec.json.encode(question), **headers)

    assert (await asyncio.to_thread(over_rest))["text"] == "x"
    async with server.connect("hasty") as client:
        for id in ("c1", "c2"):
            await client.send("complete", id=id, **question)
            await client.until("completed")
        await client.send("complete", id="c3", **question)
        refused = await client.expect("failed")
        assert (refused["id"], refused["code"]) == ("c3", "rate_limited")
        assert refused["detail"].startswith("More than 3 a minute (key): try again in ")
        with pytest.raises(HTTPError, match="429"):
            await asyncio.to_thread(over_rest)
        # Everything else goes on.
        await client.subscribe("prompts")
