"""Reads of every named cache by the layer that answered them: all but `load` are hits."""

from typing import Any

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
