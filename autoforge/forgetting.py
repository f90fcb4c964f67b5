"""Keys that must leave a named cache in Redis, at the latest before this process reads it again."""

from typing import Any

from django.conf import settings
from django.core.cache import caches

from autoforge import redis

# Keys that Redis has yet to forget, at most; were they more, it forgets everything.
MAX_UNFORGOTTEN = 10_000


class Forgetting:
    """Deletes keys of one cache. What Redis does not delete, it deletes when it is back, before anybody
    here may ask it.

    Nobody else knows what this process has yet to delete: until it has, others may find it there, and with
    the process it is forgotten. Then the time to live of the cache is what bounds it.
    """

    def __init__(self, cache_name: str) -> None:
        self._name = cache_name
        self._unforgotten: set[str | None] = set()

    def forget(self, key: str) -> None:
        """Never raises. Without Redis there is nothing to forget."""
        if not settings.REDIS_URL or self._is_deleted(key):
            return
        if len(self._unforgotten) >= MAX_UNFORGOTTEN:
            self._unforgotten = {None}
        self._unforgotten.add(key)
        # Nobody here reads Redis until it has forgotten this.
        guard = redis.pool().guard
        guard.when_back(self._forget_the_rest)
        guard.trip(redis.RedisAway("it could not be told to forget an entry"))

    def _is_deleted(self, key: str | None) -> bool:
        """False when Redis did not do it. Deleting works in a full Redis too, where writing does not."""
        cache: Any = caches[self._name]
        done = cache.delete_pattern("*") if key is None else cache.delete(key)
        return done is not None

    def _forget_the_rest(self) -> None:
        """What could not be forgotten while Redis was away. Raises RedisAway if it still cannot."""
        for key in list(self._unforgotten):
            if not self._is_deleted(key):
                raise redis.RedisAway("Redis does not forget.")
            self._unforgotten.discard(key)
