"""The runs that this process drains: each once, all on one event loop in a thread of its own."""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from uuid import UUID

from django.db import InterfaceError, OperationalError

from evaluations.engine import Drain
from evaluations.worker_names import new_worker_name

log = logging.getLogger(__name__)


class _Place:
    """A run that is being drained here."""

    def __init__(self) -> None:
        self.drain: Drain | None = None
        self.ended: Future[None] = Future()
        self.is_wanted_again = False


class Drains:
    """Starts and stops drains. The thread is a daemon and starts with the first run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._places: dict[UUID, _Place] = {}
        self._waiting: deque[tuple[UUID, int]] = deque()
        self._is_stopping = False

    @property
    def run_ids(self) -> Collection[UUID]:
        """The runs that are being drained here."""
        with self._lock:
            self._forget_parent()
            return tuple(self._places)

    def start(self, run_id: UUID) -> Future[None] | None:
        """Drain the run; the future ends when this process has left it.

        None when the process is at it already (it looks once more before it leaves) or is being stopped.
        """
        with self._lock:
            self._forget_parent()
            if self._is_stopping:
                return None
            if place := self._places.get(run_id):
                place.is_wanted_again = True
                return None
            place = self._places[run_id] = _Place()
            loop = self._loop = self._loop or self._start_loop()
        asyncio.run_coroutine_threadsafe(self._work(run_id, place), loop)
        return place.ended

    def start_in_turn(self, run_id: UUID, *, most: int) -> None:
        """Drain the run, now if fewer than `most` are being drained, else when one of them has ended."""
        with self._lock:
            self._forget_parent()
            if run_id not in self._places and len(self._places) >= most:
                self._waiting.append((run_id, most))
                return
        self.start(run_id)

    def stop(self, grace_s: float) -> None:
        """Leave all runs to others; returns at once. Calls in flight have `grace_s` to end.

        Safe in a signal handler of a thread that never starts drains.
        """
        self._is_stopping = True
        for place in tuple(self._places.values()):
            if place.drain and self._loop:
                asyncio.run_coroutine_threadsafe(place.drain.stop(grace_s), self._loop)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether every drain of this process ended within `timeout_s`."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._places and not self._waiting, timeout_s)

    def _forget_parent(self) -> None:
        """A thread does not survive a fork: the child starts its own."""
        if self._pid != os.getpid():
            self._pid, self._loop, self._places = os.getpid(), None, {}
            self._waiting.clear()

    def _start_loop(self) -> asyncio.AbstractEventLoop:
        loop = new_loop()
        threading.Thread(target=loop.run_forever, name="runs", daemon=True).start()
        return loop

    async def _work(self, run_id: UUID, place: _Place) -> None:
        try:
            while True:
                place.drain = Drain(run_id, new_worker_name())
                if not self._is_stopping:
                    await place.drain.work()
                if not self._is_wanted_again(run_id, place):
                    break
        except (OperationalError, InterfaceError) as error:
            log.warning("run %s is left for now, the database fails: %s", run_id, error)
        except Exception:
            log.exception("run %s could not be drained; it is taken up again later", run_id)
        finally:
            self._leave(run_id, place)

    def _is_wanted_again(self, run_id: UUID, place: _Place) -> bool:
        with self._idle:
            if place.is_wanted_again and not self._is_stopping:
                place.is_wanted_again = False
                return True
            self._places.pop(run_id, None)
            return False

    def _leave(self, run_id: UUID, place: _Place) -> None:
        with self._idle:
            if self._places.get(run_id) is place:
                del self._places[run_id]
            following = self._next_waiting()
            self._idle.notify_all()
        place.ended.set_result(None)
        if following is not None:
            self.start(following)

    def _next_waiting(self) -> UUID | None:
        """The first that waits, if fewer are being drained than it wanted: `start` asks for no place."""
        if self._waiting and len(self._places) < self._waiting[0][1]:
            return self._waiting.popleft()[0]
        return None


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


drains = Drains()
"""Of this process."""
