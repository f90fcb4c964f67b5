"""What one process keeps for a moment, and what its threads make together."""

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from django.conf import settings

T = TypeVar("T")
Group = tuple[int, str]
Selector = tuple[str | int | None, ...]


class Kept(NamedTuple):
    """An encoded answer and its entity tag."""

    etag: str
    body: bytes

    @classmethod
    def of(cls, body: bytes) -> "Kept":
        return cls(f'"{hashlib.sha256(body).hexdigest()[:32]}"', body)


class Copies:
    """What this process kept within the last PROCESS_CACHE_S seconds, bounded in entries and bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[Group, dict[Selector, tuple[float, Kept]]] = {}
        self._entries = self._bytes = 0
        self.epoch = 0
        """Rises with every `forget`: what was read before one must not be kept after it."""

    def get(self, group: Group, selector: Selector) -> Kept | None:
        found = self._groups.get(group)
        copy = found.get(selector) if found is not None else None
        return copy[1] if copy is not None and copy[0] > time.monotonic() else None

    def put(self, group: Group, selector: Selector, kept: Kept, *, epoch: int, read_at: float) -> None:
        """Keep what was true at `read_at`, unless something was forgotten since `epoch`."""
        with self._lock:
            if epoch != self.epoch or len(kept.body) > settings.PROCESS_CACHE_MAX_BYTES:
                return
            self._entries += 1
            self._bytes += len(kept.body)
            if (
                self._entries > settings.PROCESS_CACHE_MAX_ENTRIES
                or self._bytes > settings.PROCESS_CACHE_MAX_BYTES
            ):
                # They live for less than a second: starting afresh costs less than order.
                self._groups, self._entries, self._bytes = {}, 1, len(kept.body)
            until = read_at + settings.PROCESS_CACHE_S
            self._groups.setdefault(group, {})[selector] = (until, kept)

    @property
    def size_bytes(self) -> int:
        """Of the answers, at most: those that were forgotten by group count until all are."""
        return self._bytes

    def forget(self, group: Group | None = None) -> None:
        """Let go of one group, or of everything."""
        with self._lock:
            self.epoch += 1
            if group is None:
                self._groups, self._entries, self._bytes = {}, 0, 0
            else:
                self._groups.pop(group, None)


class SingleFlight(Generic[T]):
    """Of several threads that want the same, one makes it and the others get what it made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, tuple[float, Future[T]]] = {}

    def run(self, key: Hashable, make: Callable[[], T], *, join_s: float) -> T:
        """`make()`, or what a thread gets that began with it less than `join_s` ago: its error too."""
        now = time.monotonic()
        with self._lock:
            started, flight = self._flights.get(key, (0.0, None))
            if flight is None or started + join_s < now:
                flight = None
                self._flights[key] = own = (now, Future[T]())
        return flight.result() if flight else self._make(key, make, own)

    def _make(self, key: Hashable, make: Callable[[], T], own: tuple[float, Future[T]]) -> T:
        try:
            own[1].set_result(make())
        except BaseException as error:
            own[1].set_exception(error)
        finally:
            with self._lock:
                if self._flights.get(key) is own:
                    del self._flights[key]
        return own[1].result()
