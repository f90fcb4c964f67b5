"""One client's way out: bounded, in order, and never in anybody else's way."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any

from django.conf import settings

from autoforge.auth import Actor
from realtime import metrics
from realtime.frames import CloseCode, Frame, close_frame
from realtime.servers import Send, abort

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

    __slots__ = ("_outbox", "_send", "actor", "feeds", "is_closing", "writer")

    def __init__(self, send: Send, actor: Actor) -> None:
        self._send = send
        self._outbox: deque[Frame] = _NOTHING
        # Runs while the client does not read as fast as we send.
        self.writer: asyncio.Task[None] | None = None
        self.actor = actor
        self.feeds: dict[str, Feed] = {}
        self.is_closing = False

    def offer(self, frame: Frame) -> None:
        """Send `frame` now or as soon as the client reads; closes a client that is too far behind."""
        if self.is_closing:
            return
        if self.writer is None:
            self._write(frame)
        elif len(self._outbox) < settings.WS_OUTBOX_FRAMES:
            self._put(frame)
        else:
            self._clear()
            metrics.slow_closed.inc()
            self.close(CloseCode.TOO_SLOW, "too slow: reconnect and start from the snapshot")

    def close(self, code: int, reason: str = "") -> None:
        """Close after what is in the outbox; a client that does not read is dropped after CLOSE_GRACE_S."""
        if self.is_closing:
            return
        self.is_closing = True
        if self.writer is None:
            self._write(close_frame(code, reason))
        else:
            self._put(close_frame(code, reason))
        if self.writer is not None:
            asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self.abandon)

    def abandon(self) -> None:
        """Stop trying to send, if anything still waits."""
        if self.writer is not None:
            self.writer.cancel()
            abort(self._send)

    def _write(self, frame: Frame) -> None:
        """Run `send` up to its first wait: usually that is its end, and no task is needed."""
        sending: Any = self._send(frame)
        try:
            waited_for = sending.send(None)
        except StopIteration:
            return
        except Exception as error:
            self._lost(error)
            return
        self._outbox = deque()
        self.writer = asyncio.get_running_loop().create_task(self._empty(_rest(sending, waited_for)))

    async def _empty(self, sending: Any) -> None:
        try:
            await sending
            while self._outbox:
                metrics.outbox_frames.dec()
                await self._send(self._outbox.popleft())
        except Exception as error:
            self._lost(error)
        finally:
            self._clear()
            self._outbox, self.writer = _NOTHING, None

    def _put(self, frame: Frame) -> None:
        self._outbox.append(frame)
        metrics.outbox_frames.inc()

    def _clear(self) -> None:
        metrics.outbox_frames.dec(len(self._outbox))
        self._outbox.clear()

    def _lost(self, error: Exception) -> None:
        """Usually the client has gone and its `websocket.disconnect` is on the way; else we end it."""
        self.is_closing = True
        logger.log(logging.DEBUG if isinstance(error, OSError) else logging.ERROR, "Not sent: %r", error)
        abort(self._send)


# Shared by all connections that keep up. Bounded to nothing, so that it can never be filled.
_NOTHING: deque[Frame] = deque(maxlen=0)


@coroutine
def _rest(started: Coroutine[Any, Any, None], waited_for: Any) -> Generator[Any, None, None]:
    """What is left of a coroutine that has run up to its first wait, for a task to finish."""
    yield waited_for
    yield from started
