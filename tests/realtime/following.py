"""A hub in the test's own process, followed by clients that read when the test lets them."""

import asyncio
import json
import threading
from typing import Any

from autoforge.auth import Actor
from autoforge.models import Project
from prompts import events
from realtime import topics
from realtime.connection import Connection
from realtime.hub import Hub
from tests.realtime.clients import eventually

# Frames that may wait for a client.
OUTBOX = 8


class Wire:
    """What a server gives an application to send with; `is_open` False: the client does not read."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.was_aborted = False

    async def __call__(self, message: dict[str, Any]) -> None:
        await self.is_open.wait()
        self.sent.append(message)

    @property
    def transport(self) -> "Wire":
        return self

    @property
    def protocol(self) -> "Wire":
        return self

    def abort(self) -> None:
        self.was_aborted = True

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(each["text"]) for each in self.sent if each["type"] == "websocket.send"]

    async def has(self, count: int) -> list[dict[str, Any]]:
        """The messages, once there are `count`."""
        await eventually(lambda: len(self.sent) >= count)
        return self.messages()


class Topic:
    """`prompts`, with a state that is read when the test lets it."""

    def __init__(self, project: Project) -> None:
        self.project_id = project.pk
        self.topic = topics.Topic("prompts", topics.prompts_group(project.pk), self._read)
        self.reads = 0
        self.fails = False
        self._started, self._finish = threading.Semaphore(0), threading.Semaphore(0)

    def _read(self) -> dict[str, int]:
        self.reads += 1
        number = self.reads
        self._started.release()
        assert self._finish.acquire(timeout=30)
        if self.fails:
            raise OSError("the database is away")
        return {"read": number}

    async def is_being_read(self) -> None:
        assert await asyncio.to_thread(self._started.acquire, timeout=30)

    def let_read(self, times: int = 1) -> None:
        self._finish.release(times)

    async def happen(self, *versions: int) -> None:
        """Events, from another thread, and handed out as far as may be."""
        for version in versions:
            event = events.VersionCreated(project_id=self.project_id, prompt="p", version=version)
            await asyncio.to_thread(events.emit, event)
        await asyncio.sleep(0.02)


def follow(the_hub: Hub, actor: Actor, topic: Topic) -> tuple[Wire, Connection]:
    wire = Wire()
    connection = Connection(wire, actor)
    the_hub.enter(connection)
    the_hub.subscribe(connection, topic.topic)
    return wire, connection


def outline(messages: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(each["type"], each["seq"]) for each in messages]
