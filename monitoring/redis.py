"""How Redis is: asked with INFO over a connection of its own."""

from typing import Any

import redis
from django.conf import settings
from prometheus_client import Counter, Gauge

_TIMEOUT_S = 1.0
_QUEUE = "celery"  # the list that holds Celery's messages

up = Gauge("autoforge_redis_up", "1: Redis answers.", multiprocess_mode="livemostrecent")
memory_bytes = Gauge(
    "autoforge_redis_used_memory_bytes", "Memory that Redis uses.", multiprocess_mode="livemostrecent"
)
max_memory_bytes = Gauge(
    "autoforge_redis_max_memory_bytes",
    "Memory that Redis may use before it evicts or refuses; 0: no limit.",
    multiprocess_mode="livemostrecent",
)
clients = Gauge("autoforge_redis_clients", "Connections to Redis.", multiprocess_mode="livemostrecent")
tasks = Gauge(
    "autoforge_redis_queued_tasks", "Messages that wait for a worker.", multiprocess_mode="livemostrecent"
)
lookups = Counter("autoforge_redis_keyspace_lookups_total", "Keys that Redis looked up.", ["outcome"])
commands = Counter("autoforge_redis_commands_total", "Commands that Redis carried out.")
evicted = Counter("autoforge_redis_evicted_keys_total", "Keys that Redis dropped for want of memory.")
expired = Counter("autoforge_redis_expired_keys_total", "Keys that outlived their time.")

_COUNTED: dict[str, Any] = {
    "keyspace_hits": lookups.labels("hit"),
    "keyspace_misses": lookups.labels("miss"),
    "total_commands_processed": commands,
    "evicted_keys": evicted,
    "expired_keys": expired,
}


class _Watch:
    """Redis counts since its own start: what was counted when we looked last."""

    def __init__(self) -> None:
        self._client: redis.Redis | None = None
        self._seen: dict[str, int] = {}

    def look(self) -> None:
        self._client = self._client or redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        try:
            info: Any = self._client.info()
            tasks.set(int(self._client.llen(_QUEUE)))
        except redis.RedisError:
            up.set(0)
            return
        up.set(1)
        memory_bytes.set(info["used_memory"])
        max_memory_bytes.set(info.get("maxmemory", 0))
        clients.set(info["connected_clients"])
        self._count({name: int(info[name]) for name in _COUNTED})

    def _count(self, now: dict[str, int]) -> None:
        """Add what is new; after a restart of Redis everything is."""
        for name, count in now.items():
            before = self._seen.get(name, count)
            _COUNTED[name].inc(count - before if count >= before else count)
        self._seen = now


_watch = _Watch()


def look() -> None:
    """Bring the metrics up to date, within a few seconds; without a Redis there is nothing to do."""
    if settings.REDIS_URL:
        _watch.look()
