"""How events reach the hub of this process: from its own threads, or through the channel layer."""

import asyncio
import time
import uuid
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from channels.layers import get_channel_layer
from django.conf import settings

from realtime import metrics
from realtime.queues import LoopQueue

# Instead of events that got lost: whoever follows the group needs a fresh snapshot.
RESYNC = "resync"
# Events that wait for the hub's loop, at most.
LOCAL_QUEUE = 10_000
# How often a process makes sure, end to end, that the channel layer still knows it.
BEAT_S = 2.0
# Groups expire in the channel layer after a day: join again in time.
REJOIN_S = 3600.0


class Message(msgspec.Struct, frozen=True):
    """One event for everybody who follows `group`; `data` is JSON."""

    group: str
    event: str
    data: bytes = b"{}"


class BusLost(Exception):
    """Events may have been missed: reopen the bus and start from snapshots."""


class Bus(Protocol):
    """What the hub needs."""

    async def join(self, group: str) -> None:
        """Receive the messages of `group` from now on. Raises any error of the channel layer."""

    async def leave(self, group: str) -> None:
        """Receive no more messages of `group`."""

    async def receive(self) -> Message:
        """The next message. Raises BusLost."""

    async def reopen(self, groups: Iterable[str]) -> None:
        """Begin again after BusLost, with `groups` joined. Raises any error of the channel layer."""


class LocalBus:
    """Without Redis every event is made in this process: from its thread straight to the hub's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: LoopQueue[Message] = LoopQueue(LOCAL_QUEUE)
        self._lost: set[str] = set()

    def put(self, message: Message) -> None:
        """From any thread; never waits."""
        self._loop.call_soon_threadsafe(self._enqueue, message)

    def _enqueue(self, message: Message) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            metrics.events_dropped.inc()
            self._lost.add(message.group)

    async def join(self, group: str) -> None:
        """Nothing to do: the relay asks the hub whether somebody follows."""

    async def leave(self, group: str) -> None:
        """Nothing to do."""

    async def receive(self) -> Message:
        """The next message, or RESYNC for a group of which one did not fit."""
        if self._lost and self._queue.empty():
            return Message(self._lost.pop(), RESYNC)
        # A queue with something in it never makes us wait: give the others their turn.
        await asyncio.sleep(0)
        return await self._queue.get()

    async def reopen(self, groups: Iterable[str]) -> None:
        """Never needed."""


class LayerBus:
    """One channel of the channel layer for the whole process.

    A Redis that restarts forgets all groups, and its client reconnects without a word. So the process
    also sends itself a beat through a group of its own: a beat that stays away means that we are forgotten.
    """

    def __init__(self) -> None:
        self._layer: Any = get_channel_layer()
        # The same for life: a channel that nobody receives from would fill up.
        self._channel = ""
        self._opening = asyncio.Lock()
        self._beat_group = f"beat.{uuid.uuid4().hex}"
        self._beaten_at = 0.0
        self._joined_at: dict[str, float] = {}
        self._beating: asyncio.Task[None] | None = None

    async def join(self, group: str) -> None:
        await self._ensure_open()
        async with asyncio.timeout(settings.REDIS_TIMEOUT_S):
            await self._layer.group_add(group, self._channel)
        self._joined_at[group] = time.monotonic()

    async def leave(self, group: str) -> None:
        self._joined_at.pop(group, None)
        async with asyncio.timeout(settings.REDIS_TIMEOUT_S):
            await self._layer.group_discard(group, self._channel)

    async def receive(self) -> Message:
        while True:
            try:
                await self._ensure_open()
                async with asyncio.timeout(3 * BEAT_S):
                    message = await self._layer.receive(self._channel)
            except Exception as error:
                raise BusLost(f"The channel layer failed: {error!r}.") from error
            if message["group"] == self._beat_group:
                self._beaten_at = time.monotonic()
                continue
            if time.monotonic() - self._beaten_at > 3 * BEAT_S:
                raise BusLost("The channel layer has forgotten this process.")
            return Message(message["group"], message["event"], message["data"])

    async def reopen(self, groups: Iterable[str]) -> None:
        self._joined_at.clear()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        for group in groups:
            await self.join(group)

    async def _ensure_open(self) -> None:
        async with self._opening:
            if self._beating is not None:
                return
            self._channel = self._channel or await self._layer.new_channel("hub")
            async with asyncio.timeout(settings.REDIS_TIMEOUT_S):
                await self._layer.group_add(self._beat_group, self._channel)
            self._beaten_at = time.monotonic()
            self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        beat = as_layer_message(Message(self._beat_group, "beat"))
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._layer.group_send(self._beat_group, beat)
                    await self._rejoin_old()
            except Exception:  # noqa: S110  receive() notices that the beat stays away
                pass

    async def _rejoin_old(self) -> None:
        now = time.monotonic()
        for group, joined_at in list(self._joined_at.items()):
            if now - joined_at > REJOIN_S:
                await self.join(group)


def as_layer_message(message: Message) -> dict[str, Any]:
    """`message` as the channel layer wants it: a dict with a type."""
    return {"type": "realtime.event", "group": message.group, "event": message.event, "data": message.data}


def open_bus() -> LocalBus | LayerBus:
    """The bus of this process: the channel layer when there is Redis to share it."""
    return LayerBus() if settings.REDIS_URL else LocalBus()
