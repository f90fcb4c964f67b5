"""The threads in which sync code runs, standing and bounded."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool whose threads send `async_to_sync` calls to the server's loop, and which can be full."""

    def __init__(self, count: int, *, queue: int) -> None:
        self._count = count
        self._limit = count + queue
        self._pool: ThreadPoolExecutor | None = None
        self.in_flight = 0

    @property
    def is_full(self) -> bool:
        """Whether every thread is busy and the queue before them has no place."""
        return self.in_flight >= self._limit

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Start `call` in a thread; the caller has asked `is_full` if it may be refused."""
        assert not kwargs
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self._count, "http", initializer=_belong_to, initargs=(loop, os.getpid())
            )
        self.in_flight += 1
        future = loop.run_in_executor(self._pool, call, *args)
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: asyncio.Future[T]) -> None:
        self.in_flight -= 1

    def close(self) -> None:
        """Let what runs finish in the background, start nothing more, and free the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


def _belong_to(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    """As inside `sync_to_async`: otherwise every `async_to_sync` would start a loop and a thread."""
    SyncToAsync.threadlocal.main_event_loop = loop
    SyncToAsync.threadlocal.main_event_loop_pid = pid
