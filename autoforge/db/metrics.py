"""How the pools are doing, for Prometheus and the operator's dashboard."""

import msgspec
from dj_db_conn_pool.core import pool_container
from prometheus_client import Counter, Gauge, Histogram

WAIT_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30)

pool_wait = Histogram(
    "autoforge_db_pool_wait_seconds",
    "Time until the pool handed out a connection.",
    ["alias"],
    buckets=WAIT_BUCKETS_S,
)
pool_timeouts = Counter(
    "autoforge_db_pool_timeouts_total", "Requests for a connection that waited in vain.", ["alias"]
)
pool_connections = Gauge(
    "autoforge_db_pool_connections",
    "Connections by state: in_use, idle, overflow (in use beyond the size).",
    ["alias", "state"],
    multiprocess_mode="livesum",
)
pool_limit = Gauge(
    "autoforge_db_pool_limit",
    "Connections that the pools may open.",
    ["alias"],
    multiprocess_mode="livesum",
)


class PoolStatus(msgspec.Struct, frozen=True):
    """One pool of this process, in connections. `limit` is size plus the allowed overflow."""

    size: int
    limit: int
    in_use: int
    idle: int
    overflow: int


def pool_status() -> dict[str, PoolStatus]:
    """Every pool of this process by database alias; those never used are absent."""
    return {
        alias: PoolStatus(
            size=pool.size(),
            limit=pool.limit,
            in_use=pool.checkedout(),
            idle=pool.checkedin(),
            overflow=max(0, pool.overflow()),
        )
        for alias, pool in list(pool_container.items())
    }


def sample_pools() -> None:
    """Copy `pool_status()` into the gauges: to be called about once a second."""
    for alias, status in pool_status().items():
        for state in ("in_use", "idle", "overflow"):
            pool_connections.labels(alias, state).set(getattr(status, state))
        pool_limit.labels(alias).set(status.limit)
        pool_timeouts.labels(alias)  # a rate sees the first one only if there was a zero before it
