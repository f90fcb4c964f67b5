"""A topic as this process serves it: its followers, their snapshots, and the numbers of its events."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable

import msgspec
from django.conf import settings

from autoforge.errors import AppError, NotFound, Unavailable
from realtime import metrics
from realtime.bus import Bus
from realtime.connection import Connection, offer_all
from realtime.frames import Event, Frame, Snapshot, encode, error_frame, joined
from realtime.ring import SLOTS, Ring
from realtime.threads import in_thread
from realtime.topics import Topic, is_over

logger = logging.getLogger(__name__)

# Sends in a row before everything else in the process gets its turn.
FAN_OUT_BURST = SLOTS
# A crowd is not served all the time: what handing out took, at most this, belongs to everybody else next.
# What happens meanwhile goes out together: a write of many events costs hardly more than one of one.
MAX_REST_S = 0.2
# From one read of a topic's state to the next.
READ_PAUSE_S = 0.05
# Events that go out together, at most.
MAX_TOGETHER = 64
# `progress` holds absolute counters: of those that come faster than this only the latest is sent.
COALESCED, LAST_EVENT = "progress", "ended"
COALESCE_S = 0.1


class Feed:
    """Used in the hub's loop only.

    A follower waits in `joining` until a snapshot is read that began after it joined, and becomes `live`
    once it has been given that snapshot (number n) and the events n+1, n+2, … that came meanwhile.
    One worker task does what takes time; it ends when there is nothing left to do.
    """

    def __init__(self, topic: Topic, bus: Bus, ring: Ring | None, forget: Callable[["Feed"], None]) -> None:
        self.topic = topic
        self.seq = 0
        self.joining: set[Connection] = set()
        self.reading: set[Connection] = set()
        self.live: set[Connection] = set()
        self._bus = bus
        self._ring = ring
        self._forget = forget
        self._held: list[Frame] = []
        self._pending: deque[tuple[str, bytes]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._is_joined = False
        # Held while something is handed out: no other event and no snapshot may get in between.
        self._handing_out = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._latest: bytes | None = None
        self._coalesced_at = 0.0
        self._read_at = -math.inf
        # What its followers know of a run, and whether the database was found to know more.
        self._is_over = self._is_suspect = False

    def add(self, connection: Connection) -> None:
        """Follow: first comes a snapshot. Who follows already gets a fresh one."""
        self.reading.discard(connection)
        self.live.discard(connection)
        self.joining.add(connection)
        self._wake()

    def remove(self, connection: Connection) -> None:
        """Follow no more."""
        for followers in (self.joining, self.reading, self.live):
            followers.discard(connection)
        self._wake()

    def resync(self) -> None:
        """Events may be missing: everybody gets a fresh snapshot."""
        self.joining |= self.live | self.reading
        self.live, self.reading = set(), set()
        self._wake()

    def compare(self, *, is_live: bool) -> None:
        """With the truth about a run: when it is over, twice, and nobody has told us, it is read again."""
        is_unknown = not is_live and not self._is_over
        if is_live:
            self._is_over = False
        if is_unknown and self._is_suspect:
            self.resync()
        self._is_suspect = is_unknown

    @property
    def needs_bus(self) -> bool:
        """Whether its events come over the bus; else it reads its source itself."""
        return self._is_joined and self.topic.interval_s is None

    async def take(self, event: str, data: bytes) -> None:
        """Number an event and hand it to every follower; `data` is JSON."""
        self._is_over = event == LAST_EVENT
        if event == COALESCED:
            self._latest = data
            self._wake_in(self._coalesced_at + COALESCE_S - time.monotonic())
            return
        if event == LAST_EVENT:
            self._put_latest()
        self._put(event, data)
        while self._sender is not None and len(self._pending) >= MAX_TOGETHER:
            # Events wait in the bus, which tells us when it has lost some.
            await asyncio.shield(self._sender)

    def _wake(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    def _wake_in(self, delay_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0), self._due)

    def _due(self) -> None:
        self._timer, self._is_due = None, True
        self._wake()

    async def _work(self) -> None:
        try:
            while await self._do_next():
                pass
        except Exception:
            logger.exception("The topic %s cannot be served", self.topic.name)
        finally:
            self._worker = None
            if not (self.joining or self.live or self._is_joined):
                self._forget(self)

    async def _do_next(self) -> bool:
        """Do what is most urgent; False when there is nothing to do."""
        if self.live and self._is_due:
            self._is_due = False
            await self._send_due()
        elif self.joining:
            await self._give_snapshots()
        elif not self.live and self._is_joined:
            await self._leave_group()
        else:
            return False
        return True

    async def _give_snapshots(self) -> None:
        """One read for all who joined before it began; however many come, few a second."""
        await asyncio.sleep(self._read_at + READ_PAUSE_S - time.monotonic())
        self._read_at = time.monotonic()
        self.reading, self.joining = self.joining, set()
        try:
            await self._join_group()
            seq, self._held = self.seq, []
            data = await in_thread(self.topic.read)
        except Exception:
            logger.exception("The topic %s cannot be read", self.topic.name)
            self._refuse(
                Unavailable("This topic cannot be read right now: try again.", topic=self.topic.name)
            )
            return
        if data is None:
            self._refuse(NotFound("There is no such topic.", topic=self.topic.name))
        else:
            self._is_over = self._is_over or is_over(data)
            await self._welcome(encode(Snapshot(self.topic.name, seq, data)))

    async def _welcome(self, snapshot: Frame) -> None:
        async with self._handing_out:
            await self._hand_out(joined([snapshot, *self._held]), self.reading)
            self.live |= self.reading
            self.reading, self._held = set(), []
        if self.topic.interval_s:
            self._wake_in(self.topic.interval_s)

    def _refuse(self, error: AppError) -> None:
        frame = error_frame(error)
        for connection in self.reading:
            connection.feeds.pop(self.topic.name, None)
            metrics.subscriptions.dec()
            connection.offer(frame)
        self.reading = set()

    async def _send_due(self) -> None:
        if self.topic.interval_s is None:
            self._put_latest()
            return
        self._wake_in(self.topic.interval_s)
        self._put("sample", msgspec.json.encode(await in_thread(self.topic.read)))

    def _put_latest(self) -> None:
        data, self._latest = self._latest, None
        if data is not None:
            self._coalesced_at = time.monotonic()
            self._put(COALESCED, data)

    def _put(self, event: str, data: bytes) -> None:
        self._pending.append((event, data))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_pending())

    async def _send_pending(self) -> None:
        try:
            while self._pending:
                started = time.monotonic()
                await self._send_together()
                await asyncio.sleep(min(time.monotonic() - started, MAX_REST_S))
        except Exception:
            logger.exception("Events of %s could not be handed out", self.topic.name)
        finally:
            self._sender = None

    async def _send_together(self) -> None:
        async with self._handing_out:
            frames = [self._next_frame() for _ in range(min(len(self._pending), MAX_TOGETHER))]
            await self._hand_out(joined(frames), self.live)

    def _next_frame(self) -> Frame:
        """The oldest pending event, numbered."""
        event, data = self._pending.popleft()
        self.seq += 1
        frame = encode(Event(self.topic.name, self.seq, event, msgspec.Raw(data)))
        if self.reading:
            self._hold(frame)
        return frame

    def _hold(self, frame: Frame) -> None:
        """Keep it for those whose snapshot is being read; when that takes too long they get a later one."""
        self._held.append(frame)
        if len(self._held) > settings.WS_OUTBOX_FRAMES:
            self.joining |= self.reading
            self.reading, self._held = set(), []

    async def _hand_out(self, frame: Frame, followers: set[Connection]) -> None:
        """To each of `followers` that has not left meanwhile."""
        everybody = list(followers)
        for start in range(0, len(everybody), FAN_OUT_BURST):
            some = everybody[start : start + FAN_OUT_BURST]
            offer_all([each for each in some if each in followers], frame, self._ring)
            await asyncio.sleep(0)
        metrics.sent.inc(len(frame.texts) * len(followers))

    async def _join_group(self) -> None:
        if not self._is_joined and self.topic.interval_s is None:
            await self._bus.join(self.topic.group)
        self._is_joined = True

    async def _leave_group(self) -> None:
        self._is_joined = False
        try:
            if self.topic.interval_s is None:
                await self._bus.leave(self.topic.group)
        except Exception as error:
            # The channel layer goes on sending; the hub ignores what nobody follows.
            logger.warning("The group of %s could not be left: %r", self.topic.name, error)
