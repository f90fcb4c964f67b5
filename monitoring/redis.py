"""How Redis is: asked with INFO over a connection of its own."""

from functools import cache, lru_cache
from typing import Any

import redis
from django.conf import settings
from prometheus_client import Counter, Gauge

_TIMEOUT_S = 1.0
_QUEUE = "celery"  # the list that holds Celery's messages


class _Watch:
    """Its metrics exist from the first look on: without a Redis there are none that would say it is down."""

    def __init__(self) -> None:
        # Redis counts since its own start: what it had counted when we looked last.
        self._seen: dict[str, int] = {}
        self._up = _gauge("up", "1: Redis answers.")
        self._tasks = _gauge("queued_tasks", "Messages that wait for a worker.")
        self._gauges = {
            "used_memory": _gauge("used_memory_bytes", "Memory that Redis uses."),
            "maxmemory": _gauge("max_memory_bytes", "Memory that Redis may use; 0: no limit."),
            "connected_clients": _gauge("clients", "Connections to Redis."),
        }
        lookups = _counter("keyspace_lookups", "Keys that were looked up, by anybody.", "outcome")
        self._counters: dict[str, Any] = {
            "keyspace_hits": lookups.labels("hit"),
            "keyspace_misses": lookups.labels("miss"),
            "total_commands_processed": _counter("commands", "Commands that were carried out."),
            "evicted_keys": _counter("evicted_keys", "Keys that were dropped for want of memory."),
            "expired_keys": _counter("expired_keys", "Keys that outlived their time."),
        }

    def look(self) -> None:
        try:
            info: Any = self._ask()
        except redis.RedisError:
            self._up.set(0)
            return
        self._up.set(1)
        for name, gauge in self._gauges.items():
            gauge.set(info.get(name, 0))
        self._count({name: int(info[name]) for name in self._counters})

    def _ask(self) -> Any:
        client = _client(settings.REDIS_URL)
        self._tasks.set(int(client.llen(_QUEUE)))
        return client.info()

    def _count(self, now: dict[str, int]) -> None:
        """Add what is new; after a restart of Redis everything is."""
        for name, count in now.items():
            before = self._seen.get(name, count)
            self._counters[name].inc(count - before if count >= before else count)
        self._seen = now


def _gauge(name: str, documentation: str) -> Gauge:
    return Gauge(f"autoforge_redis_{name}", documentation, multiprocess_mode="livemostrecent")


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    return Counter(f"autoforge_redis_{name}_total", documentation, labels)


@lru_cache(maxsize=1)
def _client(url: str) -> Any:
    return redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)


@cache
def _watch() -> _Watch:
    return _Watch()


def look() -> None:
    """Bring the metrics up to date, within a few seconds; without a Redis there is nothing to do."""
    if settings.REDIS_URL:
        _watch().look()
