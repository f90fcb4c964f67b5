"""Redis for sync code: one pool a process, and a guard that lets a Redis that is away slow nobody down."""

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from django.conf import settings
from django_redis import get_redis_connection
from django_redis.cache import RedisCache as DjangoRedisCache
from prometheus_client import Counter
from redis.backoff import NoBackoff
from redis.retry import Retry

from autoforge.cache_reads import CountsGets

# How often the guard looks whether Redis is back.
LOOK_EVERY_S = 0.25
UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, OSError)
# All that may go wrong with a command.
FAILURES = (*UNREACHABLE, redis.RedisError)

failures = Counter("autoforge_redis_failures", "Commands that Redis did not carry out.", ["reason"])
_unreachable, _bypassed, _refused = (
    failures.labels(reason) for reason in ("unreachable", "bypassed", "refused")
)

logger = logging.getLogger(__name__)
T = TypeVar("T")


class RedisAway(redis.ConnectionError):
    """Redis did not answer a moment ago, and is not asked until it does."""


class Guard:
    """After a failure nobody waits for Redis: a thread of its own looks until it is back."""

    def __init__(self, pool: "GuardedPool") -> None:
        self._client = redis.Redis(connection_pool=pool)
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        self._when_back: list[Callable[[], None]] = []

    def require(self) -> None:
        """Raises RedisAway while Redis is known to be away."""
        if self._watcher is not None and self._watcher is not threading.current_thread():
            _bypassed.inc()
            raise RedisAway("Redis is away: working without it.")

    def trip(self, error: BaseException) -> None:
        """Ask no more until Redis answers a ping."""
        if self._watcher is threading.current_thread():
            return
        _unreachable.inc()
        with self._lock:
            if self._watcher is None and not self._closing.is_set():
                logger.warning("Redis does not answer, working without it: %s", error)
                self._watcher = threading.Thread(target=self._watch, name="redis-guard", daemon=True)
                self._watcher.start()

    def when_back(self, call: Callable[[], None]) -> None:
        """Have `call` made at every return of Redis before anybody else may ask it. Errors postpone that."""
        if call not in self._when_back:
            self._when_back.append(call)

    def close(self) -> None:
        """Look no more. For a process that lets go of this Redis."""
        self._closing.set()
        if watcher := self._watcher:
            watcher.join()

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S) and not self._is_back():
            pass
        self._watcher = None

    def _is_back(self) -> bool:
        try:
            self._client.ping()
            for call in self._when_back:
                call()
        except UNREACHABLE:
            return False
        except Exception:  # a bug must not keep Redis locked out
            logger.exception("What had to be made good at the return of Redis failed")
        logger.warning("Redis answers again")
        return True


class GuardedRetry(Retry):
    """redis-py sends every command and opens every connection through one of these."""

    def __init__(self, guard: Guard) -> None:
        # Once, at once, over a fresh connection; with retry_on_timeout redis-py adds timeouts to it.
        super().__init__(NoBackoff(), 1, (redis.ConnectionError,))
        self._guard = guard

    def __deepcopy__(self, memo: dict[int, Any]) -> "GuardedRetry":
        """Each connection gets a copy; the guard stays the pool's."""
        return GuardedRetry(self._guard)

    def call_with_retry(self, do: Callable[[], T], *args: Any, **kwargs: Any) -> T:
        self._guard.require()
        try:
            return super().call_with_retry(do, *args, **kwargs)
        except UNREACHABLE as error:
            self._guard.trip(error)
            raise
        except redis.exceptions.NoScriptError:
            raise
        except redis.ResponseError:
            _refused.inc()
            raise


class GuardedPool(redis.ConnectionPool):
    """A connection pool whose commands fail at once while its Redis is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = Guard(self)
        self.connection_kwargs["retry"] = GuardedRetry(self.guard)


class RedisCache(CountsGets, DjangoRedisCache):
    """django-redis, whose `clear` would flush everything else in the same Redis too."""

    layer = "redis"

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self.name = params["KEY_PREFIX"].removeprefix("af:")

    def clear(self) -> None:
        """Delete the keys of this cache."""
        self.delete_pattern("*", itersize=1_000)


def pool() -> GuardedPool:
    """The pool that all caches share: django-redis keeps one for each address. Needs settings.REDIS_URL."""
    assert settings.REDIS_URL
    shared: GuardedPool = get_redis_connection("default").connection_pool
    return shared
