"""The hub in this process, with reads and sends that last as long as the test wants."""

import asyncio
import time

import pytest

from autoforge.auth import Actor
from autoforge.models import Project
from evaluations.events import RunEnded
from evaluations.events import emit as emit_run_event
from evaluations.models import Dataset, Run, RunState
from realtime import topics
from realtime.bus import RESYNC, LocalBus, Message
from realtime.connection import Connection
from realtime.feed import READ_PAUSE_S
from realtime.hub import Hub
from tests.realtime.clients import eventually
from tests.realtime.following import OUTBOX, Topic, Wire, follow, outline

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_what_happens_during_the_read_follows_the_snapshot(
    the_hub: Hub, actor: Actor, topic: Topic
) -> None:
    wire, _ = follow(the_hub, actor, topic)
    await topic.is_being_read()
    await topic.happen(1, 2)
    assert wire.sent == []
    topic.let_read()
    await wire.has(3)
    await topic.happen(3)
    messages = await wire.has(4)
    assert outline(messages) == [("snapshot", 0), ("event", 1), ("event", 2), ("event", 3)]
    assert [each["data"]["version"] for each in messages[1:]] == [1, 2, 3]


async def test_late_news_of_a_forgotten_feed_leave_its_successor_alone(
    the_hub: Hub, actor: Actor, topic: Topic
) -> None:
    group = topic.topic.group
    _, left = follow(the_hub, actor, topic)
    former = the_hub.feeds[group]
    topic.let_read()
    the_hub.leave(left)
    await eventually(lambda: group not in the_hub.feeds)
    wire, _ = follow(the_hub, actor, topic)
    topic.let_read()
    await wire.has(1)
    former._due()
    await asyncio.sleep(0.05)
    await topic.happen(1)
    assert outline(await wire.has(2))[-1][0] == "event"


async def test_who_joins_during_a_read_gets_a_later_one(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    early, _ = follow(the_hub, actor, topic)
    await topic.is_being_read()
    await topic.happen(1)
    late, _ = follow(the_hub, actor, topic)
    await topic.happen(2)
    topic.let_read(2)
    await topic.is_being_read()
    assert outline(await early.has(3)) == [("snapshot", 0), ("event", 1), ("event", 2)]
    messages = await late.has(1)
    assert outline(messages) == [("snapshot", 2)]
    assert messages[0]["data"] == {"read": 2}


async def test_many_who_join_together_cost_one_read(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    wires = [follow(the_hub, actor, topic)[0] for _ in range(500)]
    topic.let_read(500)
    for wire in wires:
        await wire.has(1)
    await topic.happen(1)
    for wire in wires:
        assert outline(await wire.has(2)) == [("snapshot", 0), ("event", 1)]
    assert topic.reads == 1


async def test_too_much_during_a_read_means_another_read(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    wire, _ = follow(the_hub, actor, topic)
    await topic.is_being_read()
    await topic.happen(*range(OUTBOX + 1))
    topic.let_read(2)
    await wire.has(1)
    await topic.happen(99)
    messages = await wire.has(2)
    assert outline(messages) == [("snapshot", OUTBOX + 1), ("event", OUTBOX + 2)]
    assert messages[0]["data"] == {"read": 2}


async def test_lost_events_are_made_good_by_a_snapshot(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read(2)
    wire, _ = follow(the_hub, actor, topic)
    await wire.has(1)
    await topic.happen(1)
    assert isinstance(the_hub.bus, LocalBus)
    the_hub.bus.put(Message(topic.topic.group, RESYNC))
    await wire.has(3)
    await topic.happen(2)
    assert outline(await wire.has(4)) == [("snapshot", 0), ("event", 1), ("snapshot", 1), ("event", 2)]


async def test_a_full_queue_leads_to_a_snapshot(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    # While many events go out a snapshot may be too old when it is there: then another one is read.
    topic.let_read(100)
    wire, _ = follow(the_hub, actor, topic)
    await wire.has(1)
    bus = the_hub.bus
    assert isinstance(bus, LocalBus)
    message = Message(topic.topic.group, "version_created")
    for _ in range(10_001):
        bus._enqueue(message)

    def since_the_snapshot() -> list[int]:
        messages = wire.messages()
        *_, (last, number) = (
            (each["data"], place) for place, each in enumerate(messages) if each["type"] == "snapshot"
        )
        return [each["seq"] for each in messages[number:]] if last["read"] > 1 else []

    await eventually(lambda: since_the_snapshot()[-1:] == [10_000])
    # What was waiting to go out is in the snapshot, or comes after it.
    first, *_ = seqs = since_the_snapshot()
    assert seqs == list(range(first, 10_001))


async def test_a_read_that_fails_is_told_and_can_be_tried_again(
    the_hub: Hub, actor: Actor, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    topic.fails = True
    topic.let_read()
    wire, connection = follow(the_hub, actor, topic)
    refused = (await wire.has(1))[0]
    assert (refused["type"], refused["code"], refused["topic"]) == ("error", "unavailable", "prompts")
    topic.fails = False
    topic.let_read()
    the_hub.subscribe(connection, topic.topic)
    assert (await wire.has(2))[1]["type"] == "snapshot"
    assert "the database is away" in caplog.text


async def test_a_topic_without_followers_is_forgotten(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read(2)
    wire, connection = follow(the_hub, actor, topic)
    await wire.has(1)
    assert topic.topic.group in the_hub.feeds
    the_hub.leave(connection)
    await topic.happen(1)
    assert topic.topic.group not in the_hub.feeds
    assert len(wire.sent) == 1
    again, _ = follow(the_hub, actor, topic)
    assert outline(await again.has(1)) == [("snapshot", 0)]


async def test_who_leaves_during_the_read_gets_nothing(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    wire, connection = follow(the_hub, actor, topic)
    await topic.is_being_read()
    the_hub.leave(connection)
    topic.let_read()
    await topic.happen(1)
    assert wire.sent == []
    assert topic.topic.group not in the_hub.feeds


async def test_a_restart_tells_everybody_and_waits_for_them(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read()
    followers = [follow(the_hub, actor, topic) for _ in range(3)]
    for wire, _ in followers:
        await wire.has(1)
    draining = asyncio.create_task(the_hub.drain())
    for wire, connection in followers:
        await wire.has(3)
        assert wire.messages()[-1]["type"] == "closing"
        assert wire.sent[-1].items() >= {"type": "websocket.close", "code": 1012}.items()
        assert not draining.done()
        the_hub.leave(connection)
    await asyncio.wait_for(draining, 30)
    assert len({wire.messages()[-1]["retry_after_ms"] for wire, _ in followers}) > 1


async def test_a_source_is_sampled_while_somebody_follows(the_hub: Hub, actor: Actor) -> None:
    values = iter(range(1_000))
    topics.register_source("test-load", lambda: {"value": next(values)}, interval_s=0.02)
    found = topics.find("test-load", actor)
    assert found is not None and found.is_for_staff
    wire = Wire()
    connection = Connection(wire, actor)
    the_hub.subscribe(connection, found)
    messages = await wire.has(4)
    assert outline(messages)[:4] == [("snapshot", 0), ("event", 1), ("event", 2), ("event", 3)]
    assert [each["data"]["value"] for each in messages[:4]] == [0, 1, 2, 3]
    the_hub.leave(connection)
    await eventually(lambda: found.group not in the_hub.feeds)
    await asyncio.sleep(0.1)
    assert next(values) < 10


@pytest.fixture
def run(project: Project) -> Run:
    return Run.objects.create(
        project=project,
        dataset=Dataset.objects.create(project=project, name="cases"),
        prompts=[],
        endpoints=[],
        concurrency=4,
        last_case_id=0,
        total=20,
        state=RunState.RUNNING,
    )


@pytest.mark.parametrize("is_told", [True, False])
async def test_the_end_of_a_run_is_told_though_its_process_died_before_it_could(
    the_hub: Hub, actor: Actor, run: Run, is_told: bool
) -> None:
    found = topics.find(f"runs.{run.pk}", actor)
    assert found is not None
    wire = Wire()
    the_hub.subscribe(Connection(wire, actor), found)
    await wire.has(1)
    await Run.objects.filter(pk=run.pk).aupdate(state=RunState.FINISHED)
    if is_told:
        ended = RunEnded(project_id=run.project_id, run_id=run.pk, state="finished")
        await asyncio.to_thread(emit_run_event, ended)
        await wire.has(2)
    for _ in range(4):
        await the_hub.look_after_runs()
        await asyncio.sleep(0.1)
    messages = await wire.has(2)
    assert outline(messages) == [("snapshot", 0), ("event", 1) if is_told else ("snapshot", 0)]
    assert messages[-1]["data"]["state"] == "finished"


async def test_however_often_somebody_subscribes_the_state_is_read_now_and_then(
    the_hub: Hub, actor: Actor, topic: Topic
) -> None:
    topic.let_read(1_000)
    wire, connection = follow(the_hub, actor, topic)
    started = time.monotonic()
    for _ in range(50):
        the_hub.subscribe(connection, topic.topic)
        await asyncio.sleep(0.002)
    await wire.has(2)
    assert topic.reads <= (time.monotonic() - started) / READ_PAUSE_S + 2
