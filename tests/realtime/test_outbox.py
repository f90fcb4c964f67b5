"""A client that reads slowly, or not at all: what waits for it is bounded, and nobody else waits."""

import pytest
from django.test import override_settings

from autoforge.auth import Actor
from realtime import connection as connections
from realtime.frames import Unsubscribed, encode
from realtime.hub import Hub
from tests.realtime.clients import eventually
from tests.realtime.following import OUTBOX, Topic, follow, outline

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_a_client_that_does_not_read_is_closed_alone(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read(2)
    slow, _ = follow(the_hub, actor, topic)
    quick, _ = follow(the_hub, actor, topic)
    await slow.has(1)
    slow.is_open.clear()
    await topic.happen(*range(OUTBOX + 5))
    assert outline(await quick.has(OUTBOX + 6))[-1] == ("event", OUTBOX + 5)
    assert len(slow.sent) == 1
    slow.is_open.set()
    await slow.has(3)
    # What was under way still arrives, then the reason; the outbox is dropped.
    assert outline(slow.messages()) == [("snapshot", 0), ("event", 1)]
    assert slow.sent[-1].items() >= {"type": "websocket.close", "code": 4408}.items()
    assert not slow.was_aborted


async def test_few_large_frames_are_too_far_behind_too(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read()
    slow, connection = follow(the_hub, actor, topic)
    await slow.has(1)
    slow.is_open.clear()
    large = encode(Unsubscribed("x" * 600))
    with override_settings(WS_OUTBOX_BYTES=1_000):
        for _ in range(2):  # the first is under way, the second waits
            connection.offer(large)
        assert not connection.is_closing
        connection.offer(large)
    assert connection.is_closing
    slow.is_open.set()
    await slow.has(3)
    assert slow.sent[-1].items() >= {"type": "websocket.close", "code": 4408}.items()


async def test_a_client_that_catches_up_misses_nothing(the_hub: Hub, actor: Actor, topic: Topic) -> None:
    topic.let_read()
    wire, connection = follow(the_hub, actor, topic)
    await wire.has(1)
    for _ in range(3):
        wire.is_open.clear()
        await topic.happen(*range(OUTBOX))
        wire.is_open.set()
        await wire.has(len(wire.sent) + OUTBOX)
    assert [seq for _, seq in outline(wire.messages())] == list(range(3 * OUTBOX + 1))
    assert connection.writer is None


async def test_a_client_that_never_reads_is_dropped(
    the_hub: Hub, actor: Actor, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CLOSE_GRACE_S", 0.05)
    topic.let_read()
    wire, connection = follow(the_hub, actor, topic)
    await wire.has(1)
    wire.is_open.clear()
    connection.close(4401)
    connection.offer(wire.sent[0])
    await eventually(lambda: wire.was_aborted and connection.writer is None)
    assert len(wire.sent) == 1
