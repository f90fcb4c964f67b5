"""Redis goes and comes back, forgetting everything: clients end up with the true state."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from django.test import override_settings
from redis import Redis

from autoforge.auth import Actor
from autoforge.local_services import ServiceError
from autoforge.local_services.server import Server
from autoforge.local_services.valkey import Valkey
from autoforge.models import Project
from prompts import events
from realtime import bus, hub, metrics, publisher, topics
from realtime.connection import Connection
from tests.realtime.clients import ROOT, eventually
from tests.realtime.following import Wire, outline

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis of our own, that may be stopped."""
    try:
        server = Server.start(Valkey(tmp_path, "secret", is_durable=False))
    except ServiceError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
async def the_hub(redis: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[hub.Hub]:
    monkeypatch.setattr(bus, "BEAT_S", 1.0)
    monkeypatch.setattr(publisher, "RETRY_S", 0.1)
    monkeypatch.setattr(publisher, "publisher", publisher.Publisher())
    layer = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [{"address": redis.url, "socket_timeout": None}], "prefix": "af:layer"},
    }
    with override_settings(REDIS_URL=redis.url, CHANNEL_LAYERS={"default": layer}):
        yield hub.current()


def happen(project: Project, version: int) -> None:
    events.emit(events.VersionCreated(project_id=project.pk, prompt="p", version=version))


async def follow(the_hub: hub.Hub, actor: Actor) -> Wire:
    topic = topics.find("prompts", actor)
    assert topic is not None
    wire = Wire()
    connection = Connection(wire, actor)
    the_hub.enter(connection)
    the_hub.subscribe(connection, topic)
    await wire.has(1)
    return wire


def restart(redis: Server) -> None:
    redis.stop()
    redis.revive()
    assert redis.became_ready()


async def test_after_a_restart_of_redis_clients_get_a_snapshot_and_events_again(
    the_hub: hub.Hub, redis: Server, actor: Actor, project: Project
) -> None:
    wire = await follow(the_hub, actor)
    happen(project, 1)
    await wire.has(2)
    await asyncio.to_thread(restart, redis)
    await eventually(lambda: [kind for kind, _ in outline(wire.messages())].count("snapshot") >= 2)
    while wire.messages()[-1]["type"] != "event":
        # The first may find the sender's old connection broken; then there is one more snapshot.
        seen = len(wire.sent)
        happen(project, 2)
        await wire.has(seen + 1)
    before, last = wire.messages()[-2:]
    assert (last["data"], last["seq"]) == ({"prompt": "p", "version": 2}, before["seq"] + 1)


async def test_a_redis_that_silently_forgot_us_is_noticed(
    the_hub: hub.Hub, redis: Server, actor: Actor, project: Project
) -> None:
    wire = await follow(the_hub, actor)
    with Redis.from_url(redis.url) as client:
        await asyncio.to_thread(client.flushall)
    happen(project, 1)
    await wire.has(2)
    happen(project, 2)
    messages = await wire.has(3)
    assert outline(messages) == [("snapshot", 0), ("snapshot", 0), ("event", 1)]


async def test_events_lost_while_redis_is_away_are_made_good(
    the_hub: hub.Hub, redis: Server, actor: Actor, project: Project
) -> None:
    wire = await follow(the_hub, actor)
    dropped = metrics.events_dropped._value.get()
    await asyncio.to_thread(redis.stop)
    for version in range(3):
        happen(project, version)
    await eventually(lambda: metrics.events_dropped._value.get() >= dropped + 1)
    seen = len(wire.sent)
    await asyncio.to_thread(restart, redis)
    await eventually(lambda: "snapshot" in [each["type"] for each in wire.messages()[seen:]])


async def test_a_subscription_while_redis_is_away_is_refused_and_works_later(
    the_hub: hub.Hub, redis: Server, actor: Actor, project: Project
) -> None:
    await follow(the_hub, actor)
    await asyncio.to_thread(redis.stop)
    late = Wire()
    connection = Connection(late, actor)
    the_hub.enter(connection)
    run_topic = topics.find("prompts", Actor.system(await Project.objects.acreate(name="other")))
    assert run_topic is not None
    the_hub.subscribe(connection, run_topic)
    refused = (await late.has(1))[0]
    assert (refused["type"], refused["code"]) == ("error", "unavailable")
    await asyncio.to_thread(restart, redis)
    for _ in range(50):
        seen = len(late.sent)
        the_hub.subscribe(connection, run_topic)
        if (await late.has(seen + 1))[seen]["type"] == "snapshot":
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("it never worked again")


COMMAND = """
import django, sys
django.setup()
from prompts import events
events.emit(events.VersionCreated(project_id=int(sys.argv[1]), prompt="from a command", version=1))
"""


async def test_the_last_words_of_a_command_arrive(
    the_hub: hub.Hub, redis: Server, actor: Actor, project: Project, tmp_path: Path
) -> None:
    wire = await follow(the_hub, actor)
    environment = {
        "DJANGO_SETTINGS_MODULE": "autoforge.settings",
        "REDIS_URL": redis.url,
        "DATABASE_URL": "",
        "AUTOFORGE_VAR_DIR": str(tmp_path),
    }
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, str(project.pk), cwd=ROOT, env=os.environ | environment
    )
    assert await command.wait() == 0
    assert (await wire.has(2))[1]["data"] == {"prompt": "from a command", "version": 1}
