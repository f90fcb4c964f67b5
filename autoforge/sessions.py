"""Sessions of browsers: rows in the database, read through the named cache `user_sessions`."""

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends import cached_db
from django.core.cache import caches

from autoforge.forgetting import Forgetting

_forgetting = Forgetting(settings.SESSION_CACHE_ALIAS)


class SessionStore(cached_db.SessionStore):
    """Django's, which keeps entries for as long as the session, and forgets what Redis did not do.

    A session that ended or changed while Redis was away is not found there as it was before: the process
    that knows of it has the entry deleted when Redis is back. Should that process have died meanwhile, the
    entry, and with it an ended session, lives for AUTOFORGE_CACHE_TTL_USER_SESSIONS seconds at most.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._cache: Any = _SessionCache(caches[settings.SESSION_CACHE_ALIAS])

    def _validate_session_key(self, key: str) -> bool:
        """A cookie in quotes may spell a NUL, which no text column holds."""
        is_valid: bool = super()._validate_session_key(key)  # type: ignore[misc]  # the stubs leave it out
        return is_valid and "\0" not in key


class _SessionCache:
    """What cached_db asks of a cache. Entries live no longer than others of it."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def get(self, key: str) -> Any:
        return self._cache.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._cache

    def set(self, key: str, value: Any, timeout_s: float) -> None:
        is_set = self._cache.set(key, value, min(timeout_s, self._cache.default_timeout))
        if settings.REDIS_URL and not is_set:
            _forgetting.forget(key)  # what is there may be older

    def delete(self, key: str) -> None:
        if settings.REDIS_URL:
            _forgetting.forget(key)
        else:
            self._cache.delete(key)

    async def aget(self, key: str) -> Any:
        return await sync_to_async(self.get)(key)

    async def aset(self, key: str, value: Any, timeout_s: float) -> None:
        await sync_to_async(self.set)(key, value, timeout_s)

    async def adelete(self, key: str) -> None:
        await sync_to_async(self.delete)(key)
