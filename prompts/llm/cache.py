"""The response cache: never pay twice for the same answer."""

import hashlib
import math
import threading
import time
import zlib
from collections import OrderedDict
from functools import cache
from typing import Protocol

import msgspec
from django.conf import settings

from autoforge.trimming import can_trim
from prompts.llm import redis
from prompts.llm.providers.base import Completion, Request, without_own_params

KEY_PREFIX = "af:llm:"
COMPRESS_FROM_BYTES = 2_048
ENTRY_OVERHEAD_BYTES = 300  # of a key, its blob's header and its place in the dictionary
_PLAIN, _DEFLATED = b"\x01", b"\x02"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Completion)


class Stats(msgspec.Struct):
    """Counts of this process since its start."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    evicted: int = 0
    errors: int = 0  # look-ups and writes that Redis did not answer


class ResponseCache(Protocol):
    """Complete answers by key. Never raises: a cache that fails is a miss."""

    stats: Stats

    async def get(self, key: str) -> Completion | None: ...

    async def put(self, key: str, completion: Completion, ttl_s: float | None = None) -> None:
        """Keep it for `ttl_s`, at most for the cache's own time to live."""
        ...

    async def clear(self) -> None:
        """Forget every answer."""
        ...


def key_of(request: Request) -> str:
    """The identity of a question: equal keys may share an answer (SPEC 6)."""
    endpoint = request.endpoint
    identity: list[object] = [
        endpoint.project,
        endpoint.provider,
        endpoint.base_url,
        endpoint.model,
        request.messages,
        without_own_params(request).params,
        request.repeat,
    ]
    if namespace := request.cache_terms.namespace:
        identity.append({"namespace": namespace})
    if endpoint.provider == "simulated":
        # Its settings are what another vendor's model is.
        identity.append(endpoint.settings)
        if endpoint.settings.get("output") == "expected":
            identity.append(request.expected)
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()


class MemoryCache:
    """In this process: bounded by entries and bytes, the longest unused leaves first. Thread-safe."""

    def __init__(self, *, max_entries: int, max_bytes: int, ttl_s: float) -> None:
        self.stats = Stats()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._bytes = 0
        self._blobs: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    async def get(self, key: str) -> Completion | None:
        with self._lock:
            blob = self._read(key)
            if blob is None:
                self.stats.misses += 1
                return None
            self.stats.hits += 1
        return _loads(blob)

    async def put(self, key: str, completion: Completion, ttl_s: float | None = None) -> None:
        blob = _dumps(completion)
        with self._lock:
            self._drop(key)
            self._blobs[key] = (time.monotonic() + min(ttl_s or self._ttl_s, self._ttl_s), blob)
            self._bytes += len(blob) + ENTRY_OVERHEAD_BYTES
            self.stats.stored += 1
            self._evict(self._max_entries, self._max_bytes)

    async def clear(self) -> None:
        with self._lock:
            self._evict(0, 0)

    def trim(self, share: float = 0.5) -> int:
        """Give up entries until `share` of the bytes is left; the bytes freed. For memory guards."""
        with self._lock:
            before = self._bytes
            self._evict(self._max_entries, int(before * share))
            return before - self._bytes

    def __len__(self) -> int:
        return len(self._blobs)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def _read(self, key: str) -> bytes | None:
        expires_at, blob = self._blobs.get(key, (0.0, None))
        if blob is None:
            return None
        if expires_at < time.monotonic():
            self._drop(key)
            return None
        self._blobs.move_to_end(key)
        return blob

    def _drop(self, key: str) -> None:
        held = self._blobs.pop(key, None)
        if held is not None:
            self._bytes -= len(held[1]) + ENTRY_OVERHEAD_BYTES

    def _evict(self, max_entries: int, max_bytes: int) -> None:
        while self._blobs and (len(self._blobs) > max_entries or self._bytes > max_bytes):
            self._drop(next(iter(self._blobs)))
            self.stats.evicted += 1


class RedisCache:
    """In Redis, shared by all processes."""

    def __init__(self, *, ttl_s: float) -> None:
        self.stats = Stats()
        self._ttl_s = ttl_s

    async def get(self, key: str) -> Completion | None:
        try:
            blob = await redis.clients.get().command("GET", KEY_PREFIX + key)
        except redis.RedisDown:
            self.stats.errors += 1
            blob = None
        completion = None if blob is None else _loads(blob)
        if completion is None:
            self.stats.misses += 1
        else:
            self.stats.hits += 1
        return completion

    async def put(self, key: str, completion: Completion, ttl_s: float | None = None) -> None:
        ttl_ms = math.ceil(min(ttl_s or self._ttl_s, self._ttl_s) * 1000)
        try:
            client = redis.clients.get()
            await client.command("SET", KEY_PREFIX + key, _dumps(completion), "PX", ttl_ms)
            self.stats.stored += 1
        except redis.RedisDown:
            self.stats.errors += 1

    async def clear(self) -> None:
        connection = redis.clients.get().connection
        async for name in connection.scan_iter(match=KEY_PREFIX + "*", count=1_000):
            await connection.unlink(name)

    def trim(self, share: float = 0.5) -> int:
        """Nothing is kept in this process."""
        return 0


@cache
def response_cache() -> MemoryCache | RedisCache:
    """The cache that the settings ask for. `response_cache.cache_clear()` makes the next one fresh."""
    ttl_s = settings.CACHE_TTL_S["llm_responses"]
    if settings.REDIS_URL:
        return RedisCache(ttl_s=ttl_s)
    return MemoryCache(
        max_entries=settings.LLM_CACHE_MAX_ENTRIES, max_bytes=settings.LLM_CACHE_MAX_BYTES, ttl_s=ttl_s
    )


can_trim("answers of models", lambda: response_cache().trim())


def _dumps(completion: Completion) -> bytes:
    packed = _encoder.encode(completion)
    if len(packed) < COMPRESS_FROM_BYTES:
        return _PLAIN + packed
    return _DEFLATED + zlib.compress(packed, 1)


def _loads(blob: bytes) -> Completion | None:
    """The stored answer; None if another version of this software wrote it in another shape."""
    packed = blob[1:]
    try:
        return _decoder.decode(zlib.decompress(packed) if blob[:1] == _DEFLATED else packed)
    except (msgspec.MsgspecError, zlib.error):
        return None
