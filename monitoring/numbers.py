"""A summary as flat numbers by dotted names: what the history keeps and the dashboard's script reads."""

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
_NO_LEVELS = ("pool.timeouts", "processes.cpu_seconds")
# Of these the lowest is the worst.
_LOWEST = ("pool.idle", "redis.hit_rate", "redis.up", "runs.parallel_efficiency", "runs.workers")
# Latencies since the start say nothing of a moment: they come from the buckets.
_UNKEPT = ("http.latency_ms.", "models.latency_ms.", "models.first_token_ms.")


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
        if name.startswith(_LEVELS) and name not in _NO_LEVELS:
            choose = min if name in _LOWEST else max
            together[name] = choose(sample[name] for sample in samples if name in sample)
    return together
