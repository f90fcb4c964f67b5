"""What is about to break: how near everything bounded is to its bound, and what went wrong lately."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.utils import timezone

from monitoring.history import INTERVAL_S
from monitoring.models import MetricSample
from monitoring.numbers import Numbers, numbers_of, quantile_of

LATELY = timedelta(minutes=5)
# From these shares of a bound on it is near, or as good as reached.
NEAR, REACHED = 0.8, 0.95
# Shares of the requests of the last minutes that are worth a look, or an alarm.
_FAILING = (0.01, 0.05)
_LAGGING_MS = (250, 1_000)
_UNRECORDED = timedelta(seconds=6 * INTERVAL_S)


class Level(StrEnum):
    """How bad it is, the worst first."""

    REACHED = "reached"
    NEAR = "near"
    FINE = "fine"


@dataclass(frozen=True)
class Bound:
    """One sentence about one thing; `share` of its bound where it has one, `url` of where to look."""

    name: str
    text: str
    level: Level
    share: float | None = None
    url: str = ""


@dataclass(frozen=True)
class Moment:
    """The numbers now, and by how much the totals rose lately."""

    summary: dict[str, Any]
    now: Numbers
    rise: Numbers
    recorded_at: datetime | None

    def rose(self, prefix: str) -> float:
        """By how much all totals that begin with `prefix` rose together."""
        return sum(value for name, value in self.rise.items() if name.startswith(prefix))


def moment_of(summary: dict[str, Any]) -> Moment:
    """`summary` beside the history. One query."""
    now = numbers_of(summary)
    recent = MetricSample.objects.filter(resolution_s=INTERVAL_S, at__gte=timezone.now() - LATELY)
    rows = list(recent.order_by("at").values_list("at", "numbers"))
    # Without a history nobody knows what of the totals is of late.
    before: Numbers = rows[0][1] if rows else now
    # A total that fell began again at 0.
    rise = {
        name: value - before.get(name, 0) if value >= before.get(name, 0) else value
        for name, value in now.items()
    }
    return Moment(summary, now, rise, rows[-1][0] if rows else None)


def installation_bounds(moment: Moment) -> Iterator[Bound]:
    """Everything that belongs to no project."""
    for check in (_redis, _history, _pool, _memory, _websockets, _loop, _requests, _refusals, _models, _slow):
        yield from check(moment)


def filled(name: str, used: float, bound: float, text: str, url: str = "") -> Bound:
    """`used` of `bound`."""
    share = used / bound if bound else 1.0
    return Bound(name, text, level_of(share, (NEAR, REACHED)), share, url)


def level_of(value: float, limits: tuple[float, float]) -> Level:
    near, reached = limits
    return Level.REACHED if value >= reached else Level.NEAR if value >= near else Level.FINE


def _redis(moment: Moment) -> Iterator[Bound]:
    if not settings.REDIS_URL:
        return
    if moment.now.get("redis.up") == 0:
        yield Bound("Redis", "It does not answer: caches and live events are off.", Level.REACHED)
    used, bound = moment.now.get("redis.used_memory_bytes"), moment.now.get("redis.max_memory_bytes")
    if used and bound:
        yield filled("Redis memory", used, bound, f"{used / 2**20:,.0f} of {bound / 2**20:,.0f} MiB")


def _history(moment: Moment) -> Iterator[Bound]:
    if moment.recorded_at is None or moment.recorded_at < timezone.now() - _UNRECORDED:
        yield Bound("History", "Nobody records these numbers: is the process beat running?", Level.NEAR)


def _pool(moment: Moment) -> Iterator[Bound]:
    used = moment.now.get("pool.in_use")
    bound = moment.now.get("pool.limit")
    if used is None or not bound:
        return
    if vain := moment.rose("pool.timeouts"):
        text = f"{vain:,.0f} requests of the last 5 min waited in vain for a connection."
        yield Bound("Database pool", text, Level.REACHED)
    yield filled("Database pool", used, bound, f"{used:.0f} of {bound:.0f} connections in use")


def _memory(moment: Moment) -> Iterator[Bound]:
    limit = settings.MEMORY_LIMIT_BYTES
    processes = moment.summary["processes"]["by_process"]
    if processes:
        largest = max(processes, key=lambda process: process["resident_bytes"])
        used, who = largest["resident_bytes"], f"{largest['kind']}, process {largest['pid']}"
        yield filled("Memory", used, limit, f"{used / 2**20:.0f} of {limit / 2**20:.0f} MiB ({who})")


def _websockets(moment: Moment) -> Iterator[Bound]:
    used, bound = moment.now.get("websockets.connections"), moment.now.get("websockets.capacity")
    if used is not None and bound:
        yield filled("WebSockets", used, bound, f"{used:,.0f} of {bound:,.0f} connections")


def _loop(moment: Moment) -> Iterator[Bound]:
    lag_ms = quantile_of(moment.rise, "processes.loop_lag_buckets.", 0.99) or 0
    if (level := level_of(lag_ms, _LAGGING_MS)) is not Level.FINE:
        text = f"It woke up {lag_ms:.0f} ms late (P99) in the last 5 min: something blocks it."
        yield Bound("Event loop", text, level)


def _requests(moment: Moment) -> Iterator[Bound]:
    failed, all_of_them = moment.rose("http.responses.5"), moment.rose("http.responses.")
    if failed and (level := level_of(failed / all_of_them, _FAILING)) is not Level.FINE:
        text = f"{failed:,.0f} of {all_of_them:,.0f} requests of the last 5 min ended in a server error."
        yield Bound("Errors", text, level)
    if late := moment.rose("http.timeouts"):
        yield Bound("Timeouts", f"{late:,.0f} requests of the last 5 min ran out of time.", Level.NEAR)


def _refusals(moment: Moment) -> Iterator[Bound]:
    if refused := moment.rose("http.rate_limited"):
        text = f"{refused:,.0f} requests of the last 5 min were refused: their caller's limit was reached."
        yield Bound("Rate limits", text, Level.NEAR)


def _models(moment: Moment) -> Iterator[Bound]:
    good, tried = moment.rose("models.calls.ok"), moment.rose("models.calls.")
    if tried - good and (level := level_of(1 - good / tried, _FAILING)) is not Level.FINE:
        codes = [
            f"{name.removeprefix('models.calls.').replace('_', ' ')} {count:,.0f}"
            for name, count in moment.rise.items()
            if name.startswith("models.calls.") and not name.endswith(".ok") and count
        ]
        text = f"{tried - good:,.0f} of {tried:,.0f} calls of the last 5 min failed: {', '.join(codes)}."
        yield Bound("Model calls", text, level)


def _slow(moment: Moment) -> Iterator[Bound]:
    if dropped := moment.rose("websockets.dropped"):
        yield Bound("Live events", f"{dropped:,.0f} were dropped in the last 5 min.", Level.NEAR)
