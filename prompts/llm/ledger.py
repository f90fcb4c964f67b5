"""Who may call an endpoint when: requests and tokens per minute, leases of places, shared or local.

Both ledgers count by second. A reservation goes to the first second, not before the last one given
away, in which the 61 seconds up to it hold no more than the limit: no 60 seconds of real time ever do.
"""

import asyncio
import contextlib
import threading
import time
import uuid
from functools import cache
from typing import Protocol

import msgspec
from django.conf import settings

from prompts.llm import redis
from prompts.llm.per_loop import PerLoop
from prompts.llm.providers.base import Endpoint

WINDOW_S = 60
MAX_NAMES = 10_000  # endpoints counted in one process; of more, the idle ones are forgotten
LEASE_S = 30.0
RENEW_EVERY_S = 10.0


class Reservation(msgspec.Struct, frozen=True):
    """A place in the queue: `wait_s` from now, in the ledger's `second`, with `tokens` taken."""

    wait_s: float
    second: int
    tokens: int
    lease: str


class Left(msgspec.Struct, frozen=True):
    """Tokens that may still be used now, and in how many seconds all are free again."""

    tokens: int
    resets_s: float


class Ledger(Protocol):
    """Reserves calls of endpoints."""

    async def reserve(self, endpoint: Endpoint, tokens: int, max_wait_s: float) -> Reservation | None:
        """A reservation; None if all places are taken. Raises QueueFullError."""
        ...

    async def settle(self, endpoint: Endpoint, held: Reservation, tokens: int, *, is_called: bool) -> None:
        """Put `tokens` in place of the estimate, give the place back, and the request if not called."""
        ...

    async def tokens_left(self, endpoint: Endpoint) -> Left | None:
        """By what is reserved and used; None while nobody knows."""
        ...


class QueueFullError(Exception):
    """The next free second is further away than the caller would wait."""


class LocalLedger:
    """Shared by the event loops of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, dict[int, int]] = {}
        self._tokens: dict[str, dict[int, int]] = {}
        self._places: dict[str, int] = {}

    async def reserve(self, endpoint: Endpoint, tokens: int, max_wait_s: float) -> Reservation | None:
        name, limits = _name(endpoint), endpoint.limits
        with self._lock:
            if limits.max_concurrency and self._places.get(name, 0) >= limits.max_concurrency:
                return None
            tokens = min(tokens, limits.tokens_per_min or tokens)
            now = time.time()
            second = self._first_free(endpoint, tokens, int(now), int(now + max_wait_s))
            self._add(name, second, 1, tokens)
            self._places[name] = self._places.get(name, 0) + 1
        return Reservation(max(0.0, second - now), second, tokens, "")

    async def settle(self, endpoint: Endpoint, held: Reservation, tokens: int, *, is_called: bool) -> None:
        name = _name(endpoint)
        with self._lock:
            self._places[name] -= 1
            if not self._places[name]:
                del self._places[name]
            if held.second in self._requests.get(name, ()):
                self._add(name, held.second, 0 if is_called else -1, tokens - held.tokens)

    async def tokens_left(self, endpoint: Endpoint) -> Left | None:
        with self._lock:
            return _left(self._tokens.get(_name(endpoint), {}), endpoint)

    def _first_free(self, endpoint: Endpoint, tokens: int, now: int, latest: int) -> int:
        limits, name = endpoint.limits, _name(endpoint)
        if len(self._requests) >= MAX_NAMES:
            self._forget_idle(now)
        requests = self._requests[name] = _recent(self._requests.get(name, {}), now)
        spent = self._tokens[name] = _recent(self._tokens.get(name, {}), now)
        second = max(now, max(requests, default=now))
        while second <= latest:
            if _fits(requests, second, 1, limits.requests_per_min) and _fits(
                spent, second, tokens, limits.tokens_per_min
            ):
                return second
            second += 1
        raise QueueFullError

    def _forget_idle(self, now: int) -> None:
        """Endpoints that were not called within the window."""
        for name in [name for name, counts in self._requests.items() if not _recent(counts, now)]:
            del self._requests[name], self._tokens[name]

    def _add(self, name: str, second: int, requests: int, tokens: int) -> None:
        self._requests[name][second] = self._requests[name].get(second, 0) + requests
        self._tokens[name][second] = self._tokens[name].get(second, 0) + tokens


def _recent(counts: dict[int, int], now: int) -> dict[int, int]:
    return {second: count for second, count in counts.items() if second >= now - WINDOW_S}


def _fits(counts: dict[int, int], second: int, more: int, limit: int | None) -> bool:
    if not limit:
        return True
    return sum(n for at, n in counts.items() if at >= second - WINDOW_S) + more <= limit


def _left(counts: dict[int, int], endpoint: Endpoint) -> Left:
    now = time.time()
    spent = {second: count for second, count in _recent(counts, int(now)).items() if count > 0}
    resets_s = max(0.0, max(spent, default=0) + WINDOW_S + 1 - now)
    return Left(max(0, (endpoint.limits.tokens_per_min or 0) - sum(spent.values())), resets_s)


_RESERVE = redis.Script(
    """
    -- KEYS: ledger {r<second>: requests, t<second>: tokens}, leases {lease: expiry}
    -- ARGV: requests/min, tokens/min, places (0 is no limit), tokens, lease, lease ms, max wait s
    local clock = redis.call('TIME')
    local now, now_ms = tonumber(clock[1]), clock[1] * 1000 + math.floor(clock[2] / 1000)
    local max_requests, max_tokens, places = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    local cost, latest = tonumber(ARGV[4]), now + math.floor(tonumber(ARGV[7]))
    if places > 0 then
      redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms)
      if redis.call('ZCARD', KEYS[2]) >= places then return {-1, 0} end
    end
    local second = now
    if max_requests > 0 or max_tokens > 0 then
      local counts = {r = {}, t = {}}
      local sums = {r = 0, t = 0}
      local flat = redis.call('HGETALL', KEYS[1])
      for i = 1, #flat, 2 do
        local kind, at = string.sub(flat[i], 1, 1), tonumber(string.sub(flat[i], 2))
        if at < now - 60 then
          redis.call('HDEL', KEYS[1], flat[i])
        else
          counts[kind][at] = tonumber(flat[i + 1])
          sums[kind] = sums[kind] + counts[kind][at]
          if at > second then second = at end
        end
      end
      for at = now - 60, second - 61 do
        sums.r = sums.r - (counts.r[at] or 0)
        sums.t = sums.t - (counts.t[at] or 0)
      end
      while (max_requests > 0 and sums.r + 1 > max_requests)
          or (max_tokens > 0 and sums.t + cost > max_tokens) do
        sums.r = sums.r - (counts.r[second - 60] or 0)
        sums.t = sums.t - (counts.t[second - 60] or 0)
        second = second + 1
        if second > latest then break end
      end
      if second > latest then return {-2, 0} end
      redis.call('HINCRBY', KEYS[1], 'r' .. second, 1)
      redis.call('HINCRBY', KEYS[1], 't' .. second, cost)
      redis.call('EXPIRE', KEYS[1], second - now + 62)
    end
    local wait_ms = math.max(0, second * 1000 - now_ms)
    if places > 0 then
      redis.call('ZADD', KEYS[2], now_ms + wait_ms + ARGV[6], ARGV[5])
      redis.call('PEXPIRE', KEYS[2], math.max(redis.call('PTTL', KEYS[2]), wait_ms + 2 * ARGV[6]))
    end
    return {wait_ms, second}
    """
)
_SETTLE = redis.Script(
    """
    -- KEYS as above. ARGV: second, requests to add, tokens to add, lease
    for kind, more in pairs({r = ARGV[2], t = ARGV[3]}) do
      if more ~= '0' and redis.call('HEXISTS', KEYS[1], kind .. ARGV[1]) == 1 then
        redis.call('HINCRBY', KEYS[1], kind .. ARGV[1], more)
      end
    end
    redis.call('ZREM', KEYS[2], ARGV[4])
    """
)
_RENEW = redis.Script(
    """
    -- KEYS: leases. ARGV: lease, lease ms. By Redis's clock: those of machines differ.
    local clock = redis.call('TIME')
    local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
    redis.call('ZADD', KEYS[1], 'XX', now_ms + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), 2 * ARGV[2]))
    """
)


class RedisLedger:
    """Shared by all processes; while Redis is down each process counts alone."""

    def __init__(self) -> None:
        self._local = LocalLedger()
        self._leases: PerLoop[_Leases] = PerLoop(_Leases, _Leases.close)

    async def reserve(self, endpoint: Endpoint, tokens: int, max_wait_s: float) -> Reservation | None:
        limits, lease = endpoint.limits, uuid.uuid4().hex
        tokens = min(tokens, limits.tokens_per_min or 0)
        bounds = (limits.requests_per_min or 0, limits.tokens_per_min or 0, limits.max_concurrency or 0)
        lease_ms = int(LEASE_S * 1000)
        try:
            wait_ms, second = await redis.clients.get().script(
                _RESERVE, _keys(endpoint), *bounds, tokens, lease, lease_ms, max_wait_s
            )
        except redis.RedisDown:
            return await self._local.reserve(endpoint, tokens, max_wait_s)
        if wait_ms == -2:
            raise QueueFullError
        if wait_ms == -1:
            return None
        if limits.max_concurrency:
            self._leases.get().add(_keys(endpoint)[1], lease)
        return Reservation(wait_ms / 1000, second, tokens, lease)

    async def settle(self, endpoint: Endpoint, held: Reservation, tokens: int, *, is_called: bool) -> None:
        if not held.lease:
            return await self._local.settle(endpoint, held, tokens, is_called=is_called)
        limits = endpoint.limits
        requests = 0 if is_called else -1
        more = tokens - held.tokens if limits.tokens_per_min else 0
        self._leases.get().discard(held.lease)
        if not (limits.max_concurrency or requests or more):
            return None
        # While Redis is down the lease ends by itself and the estimate stands.
        with contextlib.suppress(redis.RedisDown):
            await redis.clients.get().script(
                _SETTLE, _keys(endpoint), held.second, requests, more, held.lease
            )
        return None

    async def tokens_left(self, endpoint: Endpoint) -> Left | None:
        try:
            flat = await redis.clients.get().command("HGETALL", _keys(endpoint)[0])
        except redis.RedisDown:
            return None
        counted = {name.decode(): int(count) for name, count in flat.items()}
        return _left({int(at[1:]): n for at, n in counted.items() if at[0] == "t"}, endpoint)


class _Leases:
    """Keeps the leases of one event loop alive: those of a killed process end after LEASE_S."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        self._renewal: asyncio.Task[None] | None = None

    def add(self, key: str, lease: str) -> None:
        self._held[lease] = key
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())

    def discard(self, lease: str) -> None:
        self._held.pop(lease, None)

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(RENEW_EVERY_S)
            client, lease_ms = redis.clients.get(), int(LEASE_S * 1000)
            renewals = [client.script(_RENEW, [key], lease, lease_ms) for lease, key in self._held.items()]
            await asyncio.gather(*renewals, return_exceptions=True)
        self._renewal = None


@cache
def ledger() -> Ledger:
    """The ledger that the settings ask for."""
    return RedisLedger() if settings.REDIS_URL else LocalLedger()


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.project}:{endpoint.name}"


def _keys(endpoint: Endpoint) -> tuple[str, str]:
    # The braces keep both keys on one node of a cluster.
    return f"af:limits:{{{_name(endpoint)}}}:ledger", f"af:limits:{{{_name(endpoint)}}}:leases"
