"""All WebSockets of this process: who follows what, and each event handed to everybody who does."""

import asyncio
import logging
import random
from asyncio import AbstractEventLoop

from autoforge.errors import AppError
from realtime import metrics, topics
from realtime.bus import RESYNC, BusLost, open_bus
from realtime.connection import Connection
from realtime.feed import FAN_OUT_BURST, Feed
from realtime.frames import CloseCode, Closing, Unsubscribed, encode
from realtime.rights import withdrawn
from realtime.ring import open_ring
from realtime.shutdown import before_stop
from realtime.threads import in_thread
from realtime.topics import Topic

logger = logging.getLogger(__name__)

# Topics that one connection may follow at once.
MAX_TOPICS = 100
# How long to wait before a lost channel layer is tried again, doubling; each process a bit differently.
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
# Who loses a key, membership or session is cut off within this time, and the end of a run whose last event
# got lost is told within twice of it.
RECHECK_S = 2.0
# On a restart clients are told to come back spread over this time.
RECONNECT_SPREAD_MS = (500, 10_000)
# Clients have this long to leave before the process stops.
DRAIN_S = 3.0


class TooManyTopics(AppError):
    status, code = 429, "too_many_topics"


class Hub:
    """One in each process and event loop, made by its first connection. Only `bus.put` is thread-safe."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.feeds: dict[str, Feed] = {}
        self.bus = open_bus()
        self._ring = open_ring()
        self.is_draining = False
        self._emptied = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._receive_forever()),
            asyncio.create_task(self._recheck_forever()),
        ]
        before_stop(self.drain)

    def enter(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._emptied.clear()
        metrics.connections.set(len(self.connections))

    def leave(self, connection: Connection) -> None:
        """Forget the connection and everything it follows."""
        self.connections.discard(connection)
        metrics.connections.set(len(self.connections))
        for feed in connection.feeds.values():
            feed.remove(connection)
        metrics.subscriptions.dec(len(connection.feeds))
        connection.feeds = {}
        if not self.connections:
            self._emptied.set()

    def subscribe(self, connection: Connection, topic: Topic) -> None:
        """Follow `topic`; its snapshot, or an error, comes by itself. Raises TooManyTopics."""
        if topic.name not in connection.feeds:
            if len(connection.feeds) >= MAX_TOPICS:
                raise TooManyTopics(
                    f"A connection may follow {MAX_TOPICS} topics: unsubscribe from others first.",
                    topic=topic.name,
                )
            metrics.subscriptions.inc()
        feed = self.feeds.get(topic.group)
        if feed is None:
            feed = self.feeds[topic.group] = Feed(topic, self.bus, self._ring, self._forget)
        connection.feeds[topic.name] = feed
        feed.add(connection)

    def unsubscribe(self, connection: Connection, name: str) -> None:
        """Follow `name` no more; harmless when it was not followed."""
        if feed := connection.feeds.pop(name, None):
            feed.remove(connection)
            metrics.subscriptions.dec()
        connection.offer(encode(Unsubscribed(name)))

    async def drain(self) -> None:
        """Tell every client to come back later, each at another time, and close with 1012.

        Raises TimeoutError when some have not left within DRAIN_S.
        """
        self.is_draining = True
        for count, connection in enumerate(list(self.connections), 1):
            retry_after_ms = random.randint(*RECONNECT_SPREAD_MS)
            connection.offer(encode(Closing(CloseCode.RESTARTING, retry_after_ms)))
            connection.close(CloseCode.RESTARTING, f"restarting, retry_after_ms={retry_after_ms}")
            if count % FAN_OUT_BURST == 0:
                await asyncio.sleep(0)
        if self.connections:
            async with asyncio.timeout(DRAIN_S):
                await self._emptied.wait()

    async def recheck(self) -> None:
        """Close every connection whose key, membership or session has ended since."""
        rights = {connection: connection.right for connection in self.connections}
        gone = await in_thread(withdrawn, rights.values()) if rights else set()
        for connection, right in rights.items():
            if right in gone:
                connection.close(CloseCode.UNAUTHENTICATED, "the key, membership or session has ended")

    def _forget(self, feed: Feed) -> None:
        # Late news of one that was forgotten already must not remove its successor.
        if self.feeds.get(feed.topic.group) is feed:
            del self.feeds[feed.topic.group]

    async def look_after_runs(self) -> None:
        """Let no process that died before it could say so hide from anybody that a run has ended."""
        followed = [(feed.topic.run_id, feed) for feed in self.feeds.values() if feed.topic.run_id]
        live = await in_thread(topics.live_runs, {run_id for run_id, _ in followed}) if followed else set()
        for run_id, feed in followed:
            feed.compare(is_live=run_id in live)

    async def _recheck_forever(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                await self.recheck()
                await self.look_after_runs()
            except Exception as error:
                logger.error("Rights and runs of open WebSockets could not be looked up: %r", error)

    async def _receive_forever(self) -> None:
        while True:
            try:
                await self._receive()
            except BusLost as error:
                logger.warning("%s Joining again.", error)
                metrics.bus_failures.inc()
                await self._reopen_bus()
            except Exception:
                logger.exception("An event could not be handed out")

    async def _receive(self) -> None:
        while True:
            message = await self.bus.receive()
            feed = self.feeds.get(message.group)
            if feed is None:
                continue
            if message.event == RESYNC:
                feed.resync()
            else:
                await feed.take(message.event, message.data)

    async def _reopen_bus(self) -> None:
        """Until it works; then everybody starts again from a snapshot."""
        delay_s = RETRY_MIN_S
        while True:
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, RETRY_MAX_S)
            try:
                await self.bus.reopen([feed.topic.group for feed in self.feeds.values() if feed.needs_bus])
            except Exception as error:
                logger.warning("The channel layer is still away: %r", error)
            else:
                break
        for feed in list(self.feeds.values()):
            feed.resync()


_hubs: dict[AbstractEventLoop, Hub] = {}


def current() -> Hub:
    """The hub of the running loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        for other in [other for other in _hubs if other.is_closed()]:
            del _hubs[other]
        _hubs[loop] = Hub()
    return _hubs[loop]


def running() -> list[Hub]:
    """Every hub of this process, from any thread."""
    return [hub for loop, hub in list(_hubs.items()) if loop.is_running()]
