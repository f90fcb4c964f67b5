"""Sends events through the channel layer from one thread, so that no sender ever waits for Redis."""

import asyncio
import atexit
import logging
import os
import queue
import threading
import time
from contextlib import suppress

from channels.layers import get_channel_layer
from django.conf import settings

from realtime import metrics
from realtime.bus import RESYNC, Message, as_layer_message
from realtime.queues import ThreadQueue

logger = logging.getLogger(__name__)

# Events that wait while Redis is slow or down, at most.
QUEUE_EVENTS = 10_000
# How often to try again to tell the followers of events that were lost.
RETRY_S = 1.0
# A process that ends waits this long for its last events to leave.
FLUSH_S = 2.0


class Publisher:
    """Takes messages from any thread. What cannot be sent is dropped, counted and made good by a RESYNC."""

    def __init__(self) -> None:
        self._queue: ThreadQueue[Message] = ThreadQueue(QUEUE_EVENTS)
        self._lost: set[str] = set()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def publish(self, message: Message) -> None:
        """Hand over `message`; never waits, never raises."""
        self._start()
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._lose(message)

    def flush(self) -> None:
        """Wait up to FLUSH_S until everything has been tried once."""
        until = time.monotonic() + FLUSH_S
        while self._queue.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def _start(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
                    self._thread.start()
                    atexit.register(self.flush)

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while True:
                message = None
                with suppress(queue.Empty):
                    message = self._queue.get(timeout=RETRY_S if self._lost else None)
                runner.run(self._send(message))
                if message is not None:
                    self._queue.task_done()

    async def _send(self, message: Message | None) -> None:
        """What was lost first: a follower must not see a later event and believe that nothing is missing."""
        try:
            async with asyncio.timeout(settings.REDIS_TIMEOUT_S):
                for group in list(self._lost):
                    await self._to_layer(Message(group, RESYNC))
                    self._lost.discard(group)
                if message is not None:
                    await self._to_layer(message)
        except Exception as error:
            if not self._lost:
                logger.warning("Live events cannot be sent: %r", error)
            if message is not None:
                self._lose(message)

    async def _to_layer(self, message: Message) -> None:
        await get_channel_layer().group_send(message.group, as_layer_message(message))

    def _lose(self, message: Message) -> None:
        self._lost.add(message.group)
        metrics.events_dropped.inc()


publisher = Publisher()


def _forget_thread() -> None:
    """A forked child has none of its parent's threads."""
    global publisher  # noqa: PLW0603  the one of this process
    publisher = Publisher()


os.register_at_fork(after_in_child=_forget_thread)
