"""Rate limits: so many requests a minute for each caller, counted together by all processes.

A process takes requests out of a caller's limit in leases, so that most requests ask nobody: up to 1 %
of the limit at once from fast callers, one by one from slow ones. A lease is taken before it is used, so
nobody gets more than the limit; a caller spread over n processes may be refused n % early. While Redis
is away each process counts for itself.
"""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import Counter

from autoforge import redis
from autoforge.db.threads import in_db_thread
from autoforge.errors import RateLimited

if TYPE_CHECKING:
    from autoforge.auth import Actor

WINDOW_S = 60
# The most that a process takes out of a limit at once, as a part of it.
LEASE_SHARE = 100
# A lease that was used up faster is followed by one twice as large.
LEASE_S = 0.25
# Callers that a process remembers; of more, those it met first are forgotten, and asked for anew.
MAX_CALLERS = 10_000
# Counters of two windows each that a process without Redis keeps; of more, all begin anew.
MAX_LOCAL_COUNTERS = 100_000

refused = Counter("autoforge_rate_limit_refused", "Requests over a limit.", ["policy"])
for _policy in ("key", "user", "failed-logins"):
    refused.labels(_policy)  # a rate sees the first one only if there was a zero before it
uncounted = Counter("autoforge_rate_limit_local", "Leases counted by one process alone: Redis was away.")


class Policy(NamedTuple):
    """So many requests a minute, of one kind, for one caller."""

    name: str
    caller: str
    per_min: int


class Quota(NamedTuple):
    """What a policy has left; `wait_s` is how long the request must wait, None if it may pass."""

    policy: Policy
    left: int
    resets_s: float
    wait_s: float | None = None


class _Taken(NamedTuple):
    """What the counters gave, what is left there, and after how many seconds there is more if nothing is."""

    amount: int
    left: int
    resets_s: float
    wait_s: float


class _Lease:
    """What this process may still give to a caller, or until when it need not ask for more."""

    __slots__ = ("asking", "beyond", "left", "opens_at", "per_min", "resets_at", "size", "taken_at")

    def __init__(self, per_min: int) -> None:
        self.per_min = per_min
        self.asking = threading.Lock()
        self.left = self.beyond = self.size = 0
        self.taken_at = self.resets_at = self.opens_at = 0.0


class Throttle:
    """All limits of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leases: dict[tuple[str, str], _Lease] = {}

    def spend(self, policy: Policy) -> Quota | None:
        """Let one request pass, or refuse it, by what this process knows. None: `ask`."""
        lease = self._leases.get(policy[:2])
        if lease is None or lease.per_min != policy.per_min:
            return None
        now = time.monotonic()
        with self._lock:
            if lease.left and now < lease.taken_at + WINDOW_S:
                lease.left -= 1
                return Quota(policy, lease.beyond + lease.left, lease.resets_at - now)
        return self._shut(policy, lease, now)

    def ask(self, policy: Policy) -> Quota:
        """The same by what everybody counted, with a new lease. Waits for Redis."""
        lease = self._lease(policy)
        with lease.asking:  # or every thread would take a lease
            return self.spend(policy) or self._renew(policy, lease)

    def _renew(self, policy: Policy, lease: _Lease) -> Quota:
        now = time.monotonic()
        taken = _take(policy, self._next_size(policy, lease, now))
        with self._lock:
            lease.left += max(0, taken.amount - 1)
            lease.beyond, lease.size, lease.taken_at = taken.left, taken.amount, now
            lease.resets_at = now + taken.resets_s
            # 0 while it is open: another thread's `now` may be a moment older than ours.
            lease.opens_at = now + taken.wait_s if taken.wait_s else 0.0
        if taken.amount:
            return Quota(policy, lease.beyond + lease.left, taken.resets_s)
        return self._shut(policy, lease, now) or Quota(policy, 0, taken.resets_s, wait_s=0.0)

    def is_shut(self, policy: Policy) -> Quota | None:
        """The refusal if the limit was reached, as far as this process knows; counts nothing."""
        lease = self._leases.get(policy[:2])
        return None if lease is None else self._shut(policy, lease, time.monotonic())

    def forget(self) -> None:
        """Forget all that was counted, by other processes too."""
        self._leases = {}
        _local_limiter().storage.reset()
        if settings.REDIS_URL:
            _shared_limiter(settings.REDIS_URL).storage.reset()

    def _shut(self, policy: Policy, lease: _Lease, now: float) -> Quota | None:
        if now >= lease.opens_at:
            return None
        refused.labels(policy.name).inc()
        return Quota(policy, 0, lease.resets_at - now, wait_s=lease.opens_at - now)

    def _lease(self, policy: Policy) -> _Lease:
        with self._lock:
            lease = self._leases.get(policy[:2])
            if lease is None or lease.per_min != policy.per_min:
                if len(self._leases) >= MAX_CALLERS:
                    for caller in list(islice(self._leases, MAX_CALLERS // 10)):
                        del self._leases[caller]
                lease = self._leases[policy[:2]] = _Lease(policy.per_min)
            return lease

    def _next_size(self, policy: Policy, lease: _Lease, now: float) -> int:
        with self._lock:
            if now >= lease.taken_at + WINDOW_S:
                lease.left = 0
            was_fast = now < lease.taken_at + LEASE_S
        return max(1, min(2 * lease.size, policy.per_min // LEASE_SHARE)) if was_fast else 1


throttle = Throttle()


def policies_for(actor: "Actor", route: str) -> tuple[Policy, ...]:
    """The limits of a request to `route`, the narrowest first; () for a caller without limits."""
    per_min = actor.rate_limit_per_min
    if per_min is None:
        per_min = settings.RATE_LIMITS_BY_ROLE.get(actor.role, settings.RATE_LIMIT_PER_MIN)
    if not per_min:
        return ()
    kind, caller = ("key", actor.key_id) if actor.key_id else ("user", actor.user_id)
    general = Policy(kind, str(caller), per_min)
    on_route = settings.RATE_LIMITS_BY_ROUTE.get(route)
    return (Policy(route, f"{kind} {caller}", on_route), general) if on_route else (general,)


def admit(policies: Iterable[Policy]) -> dict[str, str]:
    """Headers that say what is left. Raises RateLimited."""
    quotas: list[Quota] = []
    for policy in policies:
        quotas.append(passed(throttle.spend(policy) or throttle.ask(policy)))
    return headers_of(quotas)


async def admit_async(policies: Iterable[Policy]) -> dict[str, str]:
    """`admit` that waits for Redis in a thread."""
    quotas: list[Quota] = []
    for policy in policies:
        quotas.append(passed(throttle.spend(policy) or await in_db_thread(throttle.ask)(policy)))
    return headers_of(quotas)


def passed(quota: Quota) -> Quota:
    """`quota` if it lets the request pass. Raises RateLimited."""
    if quota.wait_s is not None:
        raise refusal(quota)
    return quota


def headers_of(quotas: Sequence[Quota]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit, as draft-ietf-httpapi-ratelimit-headers-10 has them."""
    if not quotas:
        return {}
    policies = (f'"{quota.policy.name}";q={quota.policy.per_min};w={WINDOW_S}' for quota in quotas)
    limits = (f'"{quota.policy.name}";r={quota.left};t={math.ceil(quota.resets_s)}' for quota in quotas)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}


def refusal(quota: Quota) -> RateLimited:
    """429 that says when to come back."""
    wait_s = max(1, math.ceil(quota.wait_s or 0))
    sentence = f"More than {quota.policy.per_min} a minute ({quota.policy.name}): try again in {wait_s} s."
    return RateLimited(sentence, headers=headers_of([quota]) | {"Retry-After": str(wait_s)})


def _take(policy: Policy, amount: int) -> _Taken:
    """`amount` or less of the limit, out of the counters of all processes, or else of this one."""
    if settings.REDIS_URL:
        try:
            return _take_from(_shared_limiter(settings.REDIS_URL), policy, amount)
        except redis.FAILURES:
            uncounted.inc()
    limiter = _local_limiter()
    storage: Any = limiter.storage
    if len(storage.storage) > MAX_LOCAL_COUNTERS:  # of addresses that somebody makes up
        storage.reset()
    return _take_from(limiter, policy, amount)


def _take_from(limiter: SlidingWindowCounterRateLimiter, policy: Policy, amount: int) -> _Taken:
    item = RateLimitItemPerMinute(policy.per_min)
    if not limiter.hit(item, *policy[:2], cost=amount):
        amount = int(amount > 1 and limiter.hit(item, *policy[:2]))
    storage: Any = limiter.storage
    previous, previous_s, current, current_s = storage.get_sliding_window(item.key_for(*policy[:2]), WINDOW_S)
    # A window's counter lives for two windows, the second time as the previous one.
    resets_s = max(0.0, current_s - WINDOW_S) if current else WINDOW_S
    left = max(0, policy.per_min - math.floor(previous * previous_s / WINDOW_S) - current)
    wait_s = 0.0 if left else _wait_s(policy.per_min, previous, previous_s, current, resets_s)
    return _Taken(amount, left, resets_s, wait_s)


def _wait_s(limit: int, previous: int, previous_s: float, current: int, resets_s: float) -> float:
    """Until `limit` holds one more: the previous window counts by the part of it that is not over yet."""
    if current < limit:
        return max(0.0, previous_s - WINDOW_S * (limit - current) / previous)
    return resets_s + WINDOW_S * (1 - limit / current)


@lru_cache(maxsize=1)
def _local_limiter() -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(MemoryStorage())


@lru_cache(maxsize=1)
def _shared_limiter(url: str) -> SlidingWindowCounterRateLimiter:
    storage = RedisStorage(url, connection_pool=redis.pool(), key_prefix="af:throttle")
    return SlidingWindowCounterRateLimiter(storage)
