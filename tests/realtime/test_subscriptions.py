"""Snapshot first, then every event in order, for those it concerns."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from evaluations.events import CellTokens, ResultRecorded, RunEnded, RunProgressed
from prompts.events import LabelMoved, PromptDeleted, VersionCreated
from tests.realtime.clients import WebProcess


def progressed(world: dict[str, Any], done: int, state: str = "running") -> RunProgressed:
    return RunProgressed(
        project_id=world["acme"], run_id=UUID(world["run"]), state=state, total=20, done=done,
        passed=done, failed=0, errors=0, cache_hits=0, cost_usd="0.25", saved_usd="0",
    )  # fmt: skip


def tokens(world: dict[str, Any], text: str) -> CellTokens:
    return CellTokens(
        project_id=world["acme"], run_id=UUID(world["run"]), case=1, column=0, repeat=0, text=text
    )


async def emit(server: WebProcess, *events: Any, kind: str = "runs") -> None:
    await asyncio.to_thread(server.emit, list(events), kind)


async def test_a_run_is_followed_from_its_snapshot_to_its_end(
    server: WebProcess, world: dict[str, Any]
) -> None:
    topic = f"runs.{world['run']}"
    rows: list[dict[str, object]] = [{"id": 1, "state": "passed"}]
    run = {"project_id": world["acme"], "run_id": UUID(world["run"])}
    async with server.connect("viewer") as client:
        snapshot = await client.subscribe(topic)
        assert snapshot["data"].items() >= {"id": world["run"], "state": "queued", "total": 20}.items()
        await emit(server, tokens(world, "Hel"), ResultRecorded(**run, results=rows))
        await emit(server, progressed(world, 20, "finished"), RunEnded(**run, state="finished"))
        events = [await client.expect("event") for _ in range(4)]
    assert [event["event"] for event in events] == ["tokens", "result_recorded", "progress", "ended"]
    assert [event["seq"] - snapshot["seq"] for event in events] == [1, 2, 3, 4]
    assert events[0]["data"] == {"case": 1, "column": 0, "repeat": 0, "text": "Hel"}
    assert events[1]["data"] == {"results": rows}
    assert events[2]["data"].items() >= {"done": 20, "state": "finished", "cost_usd": 0.25}.items()
    assert events[3]["data"] == {"state": "finished"}
    assert {event["topic"] for event in events} == {topic}


async def test_progress_is_coalesced_and_the_last_one_comes(
    server: WebProcess, world: dict[str, Any]
) -> None:
    async with server.connect() as client:
        await client.subscribe(f"runs.{world['run']}")
        await emit(server, *[progressed(world, done) for done in range(1, 201)])
        seen = [(await client.expect("event"))["data"]["done"]]
        while seen[-1] != 200:
            seen.append((await client.expect("event"))["data"]["done"])
    assert seen == sorted(seen)
    assert len(seen) < 20


async def test_prompts_tell_which_prompt_changed(server: WebProcess, world: dict[str, Any]) -> None:
    here = {"project_id": world["acme"], "prompt": "support/reply"}
    async with server.connect("viewer") as client:
        await client.subscribe("prompts")
        await emit(
            server,
            VersionCreated(**here, version=3),
            LabelMoved(**here, label="production", version=3),
            PromptDeleted(**here),
            kind="prompts",
        )
        events = [await client.expect("event") for _ in range(3)]
    assert [(event["event"], event["data"]) for event in events] == [
        ("version_created", {"prompt": "support/reply", "version": 3}),
        ("label_moved", {"prompt": "support/reply", "label": "production", "version": 3}),
        ("prompt_deleted", {"prompt": "support/reply"}),
    ]


async def test_a_stranger_hears_nothing(server: WebProcess, world: dict[str, Any]) -> None:
    async with server.connect("stranger") as stranger, server.connect() as client:
        await stranger.subscribe("prompts")
        await stranger.send("subscribe", topic=f"runs.{world['run']}")
        refused = await stranger.expect("error")
        assert (refused["code"], refused["topic"]) == ("not_found", f"runs.{world['run']}")
        await client.subscribe(f"runs.{world['run']}")
        await client.subscribe("prompts")
        await emit(server, tokens(world, "secret"))
        await emit(
            server, VersionCreated(project_id=world["acme"], prompt="secret", version=1), kind="prompts"
        )
        assert [(await client.expect("event"))["event"] for _ in range(2)] == ["tokens", "version_created"]
        await stranger.send("ping")
        await stranger.expect("pong")


@pytest.mark.parametrize("topic", ["runs.{foreign}", "runs.{none}", "runs.x", "metrics", "", "prompts.1"])
async def test_what_is_not_ours_does_not_exist(server: WebProcess, world: dict[str, Any], topic: str) -> None:
    topic = topic.format(foreign=world["foreign_run"], none=uuid4())
    async with server.connect() as client:
        await client.send("subscribe", topic=topic)
        assert (await client.expect("error")).items() >= {"code": "not_found", "topic": topic}.items()


async def test_a_source_of_ours_is_for_staff_alone(server: WebProcess, world: dict[str, Any]) -> None:
    origin = f"http://127.0.0.1:{server.port}"
    for session, answer in (("session", "error"), ("staff_session", "snapshot")):
        cookie = {"Cookie": f"sessionid={world[session]}"}
        async with server.connect(None, additional_headers=cookie, origin=origin) as client:
            await client.send("subscribe", topic="load")
            assert (await client.expect(answer)).get("code") == {"error": "not_found"}.get(answer)
            if answer == "snapshot":
                events = [await client.expect("event") for _ in range(2)]
    assert [(each["seq"], each["event"], each["data"]) for each in events] == [
        (1, "sample", {"load": 0.5}),
        (2, "sample", {"load": 0.5}),
    ]


async def test_after_unsubscribing_nothing_comes(server: WebProcess, world: dict[str, Any]) -> None:
    topic = f"runs.{world['run']}"
    async with server.connect() as client, server.connect() as witness:
        await client.subscribe(topic)
        await witness.subscribe(topic)
        await client.send("unsubscribe", topic=topic)
        assert (await client.expect("unsubscribed"))["topic"] == topic
        await emit(server, tokens(world, "x"))
        await witness.expect("event")
        await client.send("ping")
        await client.expect("pong")


async def test_subscribing_again_gives_a_fresh_snapshot(server: WebProcess, world: dict[str, Any]) -> None:
    topic = f"runs.{world['run']}"
    async with server.connect() as client:
        first = await client.subscribe(topic)
        await emit(server, tokens(world, "x"))
        await client.expect("event")
        assert (await client.subscribe(topic))["seq"] == first["seq"] + 1
        await emit(server, tokens(world, "y"))
        assert (await client.expect("event"))["seq"] == first["seq"] + 2


async def test_what_cannot_be_understood_is_answered_and_the_connection_stays(server: WebProcess) -> None:
    said = {
        "{": ("bad_json", None),
        "[1]": ("bad_json", None),
        "[": ("bad_json", None),
        '{"type": "subscribe", "topic": 5': ("bad_json", None),
        '{"type": "shout", "x": ]}': ("bad_json", None),
        "[" * 4_000: ("bad_json", None),
        '{"type": "shout", "id": "a"}': ("unknown_type", "a"),
        '{"topic": "prompts"}': ("unknown_type", None),
        '{"type": "cancel"}': ("invalid", None),
        '{"type": "complete", "id": "b", "vars": 1}': ("invalid", "b"),
        '{"type": "ping", "loud": true}': ("invalid", None),
        r'{"type": "cancel", "id": "a\u0000"}': ("invalid", "a\0"),
        r'{"type": "subscribe", "topic": "prompts\u0000"}': ("invalid", None),
        r'{"type": "subscribe", "topic": "runs.\u0000"}': ("invalid", None),
        '{"type": "ping", "pad": "%s"}' % ("é" * 5_000): ("too_large", None),
        '{"type": "cancel", "id": "gone"}': ("not_found", "gone"),
    }
    async with server.connect() as client:
        for text in said:
            await client.connection.send(text)
        answers = [await client.expect("error") for _ in said]
        await client.connection.send(b'{"type": "ping"}')
        await client.expect("pong")
    assert [(answer["code"], answer.get("id")) for answer in answers] == list(said.values())
    assert all(answer["detail"] for answer in answers)
    assert server.logged_errors() == []


async def test_a_connection_follows_a_bounded_number_of_topics(
    server: WebProcess, world: dict[str, Any]
) -> None:
    followed = [f"runs.{run}" for run in world["old_runs"]]
    async with server.connect() as client:
        for topic in followed:
            await client.subscribe(topic)
        await client.send("subscribe", topic="prompts")
        refused = await client.expect("error")
        assert (refused["code"], refused["topic"]) == ("too_many_topics", "prompts")
        # What is followed already may be asked for again, and what is left makes room.
        await client.subscribe(followed[0])
        await client.send("unsubscribe", topic=followed[0])
        await client.expect("unsubscribed")
        await client.subscribe("prompts")


async def test_unknown_topics_do_not_count_once_they_are_refused(server: WebProcess) -> None:
    async with server.connect() as client:
        for _ in range(101):
            await client.send("subscribe", topic=f"runs.{uuid4()}")
            assert (await client.expect("error"))["code"] == "not_found"
        await client.subscribe("prompts")


async def ask(server: WebProcess, world: dict[str, Any], method: str, path: str, body: Any) -> Any:
    """A REST request of the editor to the same process."""
    headers = {"Authorization": f"Bearer {world['editor']}", "Content-Type": "application/json"}
    return await asyncio.to_thread(server.request, method, path, msgspec.json.encode(body), **headers)


async def test_what_is_done_over_rest_is_heard(server: WebProcess, world: dict[str, Any]) -> None:
    name = f"greeting-{server.server}"
    async with server.connect("viewer") as client:
        await client.subscribe("prompts")
        await ask(
            server,
            world,
            "POST",
            "/api/v1/prompts",
            {"name": name, "type": "text", "template": "Hi {{ who }}"},
        )
        await ask(server, world, "PUT", f"/api/v1/prompts/{name}/labels/staging", {"version": 1})
        events = [await client.expect("event") for _ in range(2)]
    assert [(each["event"], each["data"]) for each in events] == [
        ("version_created", {"prompt": name, "version": 1}),
        ("label_moved", {"prompt": name, "label": "staging", "version": 1}),
    ]
    async with server.connect() as client:
        await client.send("complete", id="1", prompt=name, label="staging", model="echo", vars={"who": "Ada"})
        assert "Hi Ada" in (await client.until("completed"))[-1]["text"]
        await client.send("complete", id="2", prompt=name, version=7, model="echo", vars={"who": "Ada"})
        assert (await client.expect("failed"))["code"] == "not_found"


async def test_a_run_is_heard_from_its_start_to_its_end(server: WebProcess, world: dict[str, Any]) -> None:
    prompt, dataset = f"shout-{server.server}", f"words-{server.server}"
    await ask(
        server, world, "POST", "/api/v1/prompts", {"name": prompt, "type": "text", "template": "{{ input }}!"}
    )
    await ask(server, world, "POST", "/api/v1/datasets", {"name": dataset})
    for number in range(12):
        await ask(
            server, world, "POST", f"/api/v1/datasets/{dataset}/cases", {"vars": {"input": f"word {number}"}}
        )
    run = await ask(
        server,
        world,
        "POST",
        "/api/v1/runs",
        {"prompts": [{"name": prompt}], "models": ["steady"], "dataset": dataset, "concurrency": 2},
    )
    async with server.connect("viewer") as client:
        snapshot = await client.subscribe(f"runs.{run['id']}")
        heard = []
        while not heard or heard[-1]["event"] != "ended":
            heard.append(await client.expect("event"))
        final = await client.subscribe(f"runs.{run['id']}")
    assert [each["seq"] for each in heard] == list(
        range(snapshot["seq"] + 1, snapshot["seq"] + 1 + len(heard))
    )
    assert [each["data"]["done"] for each in heard if each["event"] == "progress"][-1] == 12
    assert final["data"].items() >= {"state": "finished", "done": 12, "total": 12}.items()
