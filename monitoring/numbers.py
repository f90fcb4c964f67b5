"""A summary as flat numbers by dotted names: what the history keeps and the dashboard's script reads."""

import math
from collections.abc import Mapping
from typing import Any

Numbers = dict[str, float]

# Numbers that tell how things are; all others only grow.
_LEVELS = (
    "http.in_flight",
    "pool.",
    "processes.",
    "redis.",
    "runs.budget",
    "runs.by_state.",
    "runs.cells_open",
    "runs.parallel_efficiency",
    "runs.workers",
    "websockets.capacity",
    "websockets.connections",
    "websockets.outbox",
    "websockets.subscriptions",
)
_NO_LEVELS = (
    "pool.timeouts",
    "pool.wait_buckets.",
    "processes.cpu_seconds",
    "processes.loop_lag_buckets.",
    "redis.hits",
    "redis.misses",
)
# Of these the lowest is the worst.
_LOWEST = ("pool.idle", "redis.up", "runs.parallel_efficiency", "runs.workers")
# Percentiles and rates since the start say nothing of a moment: they come from the totals.
_UNKEPT = (
    "http.latency_ms.",
    "models.latency_ms.",
    "models.first_token_ms.",
    "pool.wait_ms",
    "processes.loop_lag_ms.",
    "redis.hit_rate",
)


def numbers_of(summary: dict[str, Any], prefix: str = "") -> Numbers:
    """The numbers of a nested summary; unknown ones are left out.

    Of a histogram each bucket has its bound for a name, of the processes only the largest is kept.
    """
    found: Numbers = {}
    for key, value in summary.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= numbers_of(value, f"{name}.")
        elif isinstance(value, list):
            found |= _numbers_of_rows(value, name)
        elif isinstance(value, int | float) and not name.startswith(_UNKEPT):
            found[name] = round(float(value), 6)
    return found


Counts = list[tuple[float, float]]
"""A histogram: (upper bound, observations in this bucket alone), in order."""


def apart(up_to: Mapping[float, float]) -> Counts:
    """Prometheus' buckets, of which each holds all below it too, each by itself."""
    reached, counts = 0.0, []
    for bound, count in sorted(up_to.items()):
        counts.append((bound, count - reached))
        reached = count
    return counts


def quantile(counts: Counts, share: float) -> float | None:
    """Where `share` of all observations is reached, linear within its bucket; None without any.

    Beyond the last bound it is that bound, as in Prometheus' histogram_quantile.
    """
    wanted = share * sum(count for _, count in counts)
    below, reached = 0.0, 0.0
    for bound, count in counts:
        if wanted and reached + count >= wanted:
            inside = 0.0 if math.isinf(bound) else (bound - below) * (wanted - reached) / count
            return below + inside
        below, reached = bound, reached + count
    return None


def quantile_of(numbers: Numbers, prefix: str, share: float) -> float | None:
    """`quantile` of the histogram whose buckets are `prefix…` among `numbers`, in the unit of its bounds."""
    buckets = {float(name.removeprefix(prefix)): n for name, n in numbers.items() if name.startswith(prefix)}
    return quantile(sorted(buckets.items()), share)


def _numbers_of_rows(rows: list[dict[str, Any]], name: str) -> Numbers:
    buckets = [row for row in rows if "le_ms" in row]
    sizes = [row["resident_bytes"] for row in rows if "resident_bytes" in row]
    found = {f"{name}.{_bound(row['le_ms'])}": float(row["count"]) for row in buckets}
    return found | ({f"{name}.largest": float(max(sizes))} if sizes else {})


def _bound(ms: float | None) -> str:
    return "inf" if ms is None else f"{ms:g}"


def worst_of(samples: list[Numbers]) -> Numbers:
    """The last of `samples`, with the worst of all where a number tells how things are."""
    together = dict(samples[-1])
    for name in together:
        if name.startswith(_LEVELS) and not name.startswith(_NO_LEVELS):
            choose = min if name in _LOWEST else max
            together[name] = choose(sample[name] for sample in samples if name in sample)
    return together
