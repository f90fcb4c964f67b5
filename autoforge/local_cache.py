"""The named caches of an installation without Redis: in this process, bounded in entries and in bytes."""

from collections import OrderedDict
from typing import Any

from django.core.cache.backends import locmem
from django.core.cache.backends.locmem import LocMemCache

from autoforge.cache_reads import CountsGets
from autoforge.trimming import can_trim

# Of an entry beside its value: its key twice, its expiry, its places in two dictionaries.
ENTRY_OVERHEAD_BYTES = 400


class _Sized(OrderedDict[str, bytes]):
    """Knows how many bytes its values take; changed under its cache's lock only."""

    size_bytes = 0

    def __setitem__(self, key: str, value: bytes) -> None:
        self.size_bytes += _size_of(value) - (_size_of(self[key]) if key in self else 0)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.size_bytes -= _size_of(self[key])
        super().__delitem__(key)

    def popitem(self, last: bool = True) -> tuple[str, bytes]:
        key = next(reversed(self) if last else iter(self))
        value = self[key]
        del self[key]
        return key, value

    def clear(self) -> None:
        super().clear()
        self.size_bytes = 0


class LocalCache(CountsGets, LocMemCache):
    """Django's, which bounds entries only. `MAX_BYTES` bounds it; `IS_TRIMMED`: it can be done without."""

    layer = "process"
    # Django's own.
    _cache: _Sized
    _expire_info: dict[str, Any]

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        # Each thread has an object of its own, and all of them the same dictionary.
        locmem._caches.setdefault(name, _Sized())  # type: ignore[attr-defined]  # Django's own, by name
        super().__init__(name, params)
        self.name = name
        options = params["OPTIONS"]
        self._max_bytes: int = options["MAX_BYTES"]
        if options["IS_TRIMMED"]:
            can_trim(f"the cache {name}", self.trim)

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        found = ((key, LocMemCache.get(self, key, version=version)) for key in keys)
        return {key: value for key, value in found if value is not None}

    def trim(self) -> int:
        """Forget everything; the bytes freed."""
        freed = self._cache.size_bytes
        self.clear()
        return freed

    def _set(self, key: str, value: bytes, *timeout: Any) -> None:
        super()._set(key, value, *timeout)  # type: ignore[misc]
        while self._cache.size_bytes > self._max_bytes:
            oldest, _ = self._cache.popitem()
            del self._expire_info[oldest]


def _size_of(value: Any) -> int:
    return len(value) + ENTRY_OVERHEAD_BYTES
