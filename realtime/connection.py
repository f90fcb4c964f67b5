"""One client's way out: bounded, in order, and never in anybody else's way."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from autoforge.auth import Actor
from realtime import metrics
from realtime.frames import CloseCode, Frame
from realtime.rights import Login, Right, right_of
from realtime.ring import Ring
from realtime.servers import Behind, Send, link_of

if TYPE_CHECKING:
    from realtime.feed import Feed

logger = logging.getLogger(__name__)

# A client that does not read may still fetch the reason of its close this long.
CLOSE_GRACE_S = 10.0


class Connection:
    """What the server keeps of one client. Used in its server's event loop only.

    Nothing runs for a connection that keeps up: a frame goes straight to the transport. Once that is full,
    frames wait in an outbox of WS_OUTBOX_FRAMES and a task empties it; then the client is closed with 4408.
    """

    __slots__ = ("_farewell", "_link", "_login", "_outbox", "actor", "feeds", "is_closing", "writer")

    def __init__(self, send: Send, actor: Actor, login: Login | None = None) -> None:
        self._link = link_of(send)
        self._outbox: _Outbox | None = None
        self._farewell: tuple[int, str] | None = None
        # Runs while the client does not read as fast as we send.
        self.writer: asyncio.Task[None] | None = None
        self.actor = actor
        self._login = login
        self.feeds: dict[str, Feed] = {}
        self.is_closing = False

    @property
    def right(self) -> Right:
        """What must hold for it to stay."""
        is_for_staff = any(feed.topic.is_for_staff for feed in self.feeds.values())
        return right_of(self.actor, self._login, is_for_staff=is_for_staff)

    def offer(self, frame: Frame) -> None:
        """Send `frame` now or as soon as the client reads; closes a client that is too far behind."""
        if self.is_closing:
            return
        if self._outbox is None:
            try:
                behind = self._link.write(frame)
            except Exception as error:
                self._lost(error)
            else:
                if behind is not None:
                    self._wait_for(behind)
        elif self._outbox.has_room_for(frame):
            self._outbox.put(frame)
        else:
            self._outbox.clear()
            metrics.slow_closed.inc()
            self.close(CloseCode.TOO_SLOW, "too slow: reconnect and start from the snapshot")

    @property
    def idle_file(self) -> int:
        """The file number of its socket, if nothing waits to be sent and others may write to it; else -1."""
        return -1 if self.is_closing or self._outbox is not None else self._link.idle_file

    def close(self, code: int, reason: str = "") -> None:
        """Close after what is in the outbox; a client that does not read is dropped after CLOSE_GRACE_S."""
        if self.is_closing:
            return
        self.is_closing = True
        if self.writer is not None:
            self._farewell = (code, reason)
        else:
            try:
                behind = self._link.close(code, reason)
            except Exception as error:
                self._lost(error)
            else:
                if behind is not None:
                    self._wait_for(behind)
        if self.writer is not None:
            asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self.abandon)

    def abandon(self) -> None:
        """Stop trying to send, if anything still waits."""
        if self.writer is not None:
            self.writer.cancel()
            self._link.abort()

    def _wait_for(self, behind: Awaitable[Any]) -> None:
        """What comes from now on waits while the client is behind."""
        self._outbox = _Outbox()
        self.writer = asyncio.get_running_loop().create_task(self._empty(self._outbox, behind))

    async def _empty(self, outbox: "_Outbox", behind: Awaitable[Any]) -> None:
        try:
            await behind
            while (frame := outbox.take()) is not None:
                await _done(self._link.write(frame))
            if self._farewell is not None:
                await _done(self._link.close(*self._farewell))
        except Exception as error:
            self._lost(error)
        finally:
            outbox.clear()
            self._outbox = self.writer = None

    def _lost(self, error: Exception) -> None:
        """Usually the client has gone and its `websocket.disconnect` is on the way; else we end it."""
        self.is_closing = True
        logger.log(logging.DEBUG if isinstance(error, OSError) else logging.ERROR, "Not sent: %r", error)
        self._link.abort()


def offer_all(connections: Sequence[Connection], frame: Frame, ring: Ring | None) -> None:
    """`offer` to each; with a `ring` in one system call to all that keep up, which may be SLOTS at most."""
    if ring is None or ring.is_broken:
        for connection in connections:
            connection.offer(frame)
        return
    files = [connection.idle_file for connection in connections]
    idle = [connection for connection, file in zip(connections, files, strict=True) if file >= 0]
    shortfalls = ring.send([file for file in files if file >= 0], frame.wire)
    for connection, file in zip(connections, files, strict=True):
        if file < 0:
            connection.offer(frame)
    for place, taken in shortfalls:
        rest: Any = memoryview(frame.wire)[taken:]  # a copy for each would be much
        idle[place].offer(Frame((), rest))


class _Outbox:
    """Frames that wait for their client, counted one by one, and their bytes."""

    __slots__ = ("_bytes", "_count", "_frames")

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._count = self._bytes = 0

    def has_room_for(self, frame: Frame) -> bool:
        """A single frame may be as large as it is: a whole answer of a model."""
        if self._count + len(frame.texts) > settings.WS_OUTBOX_FRAMES:
            return False
        return not self._frames or self._bytes + len(frame.wire) <= settings.WS_OUTBOX_BYTES

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._bytes += len(frame.wire)
        self._counted(len(frame.texts))

    def take(self) -> Frame | None:
        """The oldest; None when there is none."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame.wire)
        self._counted(-len(frame.texts))
        return frame

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0
        self._counted(-self._count)

    def _counted(self, more: int) -> None:
        self._count += more
        metrics.outbox_frames.inc(more)


async def _done(behind: Behind) -> None:
    if behind is not None:
        await behind
