"""Queues of events that are bounded in number and in bytes: what does not fit is lost, and told so."""

import asyncio
import queue
from typing import Protocol, TypeVar

# Of one queue; the event that exceeds it is still taken.
QUEUE_BYTES = 32 * 1024 * 1024


class Sized(Protocol):
    """What such a queue holds."""

    @property
    def data(self) -> bytes: ...


M = TypeVar("M", bound=Sized)


class ThreadQueue(queue.Queue[M]):
    """Between threads."""

    size_bytes = 0

    def _put(self, item: M) -> None:
        self.size_bytes += len(item.data)
        super()._put(item)

    def _get(self) -> M:
        item = super()._get()
        self.size_bytes -= len(item.data)
        return item

    def _qsize(self) -> int:
        return self.maxsize if self.size_bytes >= QUEUE_BYTES else super()._qsize()


class LoopQueue(asyncio.Queue[M]):
    """Within an event loop."""

    size_bytes = 0

    def _put(self, item: M) -> None:
        self.size_bytes += len(item.data)
        super()._put(item)

    def _get(self) -> M:
        item = super()._get()
        self.size_bytes -= len(item.data)
        return item

    def full(self) -> bool:
        """Whether `put_nowait` would raise."""
        return self.size_bytes >= QUEUE_BYTES or super().full()
