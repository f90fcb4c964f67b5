"""Things that are expensive to make and needed again, bounded in number and in size."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from autoforge.trimming import can_trim

K = TypeVar("K", bound=str | bytes)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """`make(key)`, remembered while it is among the last used. Thread-safe.

    A thing is as large as its key times `growth`; one that is larger than all may be is not kept. What
    `make` raises is raised, and not kept.
    """

    def __init__(
        self, name: str, make: Callable[[K], V], *, max_entries: int, max_bytes: int, growth: int = 1
    ) -> None:
        self._make = make
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._growth = growth
        self._held: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0
        can_trim(name, self.clear)

    def __call__(self, key: K) -> V:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = self._make(key)
        self._keep(key, made)
        return made

    def __len__(self) -> int:
        return len(self._held)

    def clear(self) -> int:
        """Forget everything; the bytes freed."""
        with self._lock:
            freed, self.size_bytes = self.size_bytes, 0
            self._held.clear()
        return freed

    def _keep(self, key: K, made: V) -> None:
        with self._lock:
            if key not in self._held:
                self.size_bytes += self._size_of(key)
            self._held[key] = made
            while len(self._held) > self._max_entries or self.size_bytes > self._max_bytes:
                self.size_bytes -= self._size_of(self._held.popitem(last=False)[0])

    def _size_of(self, key: K) -> int:
        return len(key) * self._growth
