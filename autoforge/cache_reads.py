"""Reads of every named cache by the layer that answered them: all but `load` are hits."""

from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from prometheus_client import Counter

reads = Counter("autoforge_cache_reads_total", "Reads by the layer that answered them.", ["cache", "layer"])


class CountsGets:
    """A cache backend whose `get` counts. `get_many` is for those who count by themselves."""

    name: str
    layer: str

    def get(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get(*args, **kwargs)  # type: ignore[misc]  # a mixin of backends
        reads.labels(self.name, "load" if found is None else self.layer).inc()
        return found


class LocalCache(CountsGets, LocMemCache):
    """Django's, within this process; `server` is the cache's name."""

    layer = "process"

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self.name = server

    def get_many(self, keys: Any, version: int | None = None) -> dict[Any, Any]:
        found = ((key, LocMemCache.get(self, key, version=version)) for key in keys)
        return {key: value for key, value in found if value is not None}
