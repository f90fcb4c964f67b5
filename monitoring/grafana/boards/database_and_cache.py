"""PostgreSQL and its pools, Redis, and the caches."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import per_second, quantile, quantiles, share_of_hits

_QUERIES = "autoforge_django_db_query_duration_seconds"
_LOOKUPS = "autoforge_redis_keyspace_lookups_total"
_HITS = _LOOKUPS + '{outcome="hit"}'

_POOL = Row(
    title="Connections to the database",
    panels=[
        Panel(
            title="Pools",
            about="Connections of all processes: in use, idle, and in use beyond the pools' size.",
            queries={
                "{{state}}": "sum by (state) (autoforge_db_pool_connections)",
                "limit": "sum(autoforge_db_pool_limit)",
            },
        ),
        Panel(
            title="Wait for a connection",
            about="Time until a pool handed one out.",
            queries=quantiles("autoforge_db_pool_wait_seconds"),
            unit="s", warn=0.05, bad=0.5,
        ),
        Panel(
            title="Exhausted",
            about="Requests that waited in vain, and were answered with 503.",
            queries={"timeouts": per_second("autoforge_db_pool_timeouts_total")},
            unit="ops", bad=0.01,
        ),
        Panel(
            title="Part of the pools in use",
            about="At 1 requests wait.",
            queries={"in use": "autoforge:db_pool_used:ratio"},
            kind="stat", unit="percentunit", width=6, height=5, warn=0.6, bad=0.8, maximum=1,
        ),
        Panel(
            title="Connections of the server",
            about="Of everybody, as part of max_connections.",
            queries={
                "used": "max(autoforge_db_server_connections) / max(autoforge_db_server_max_connections)"
            },
            kind="stat", unit="percentunit", width=6, height=5, warn=0.7, bad=0.9, maximum=1,
        ),
        Panel(
            title="Size",
            about="Of the database on disk.",
            queries={"size": "max(autoforge_db_size_bytes)"},
            kind="stat", unit="bytes", width=6, height=5,
        ),
        Panel(
            title="Reachable",
            about="1: the database answers.",
            queries={"up": "min(autoforge_db_up)"},
            kind="stat", width=6, height=5, bad=1, is_better_high=True, maximum=1,
        ),
    ],
)  # fmt: skip

_STATEMENTS = Row(
    title="Statements",
    panels=[
        Panel(
            title="Statements",
            about="Sent to the database.",
            queries={"statements": per_second("autoforge_django_db_execute_total")},
            unit="ops",
        ),
        Panel(
            title="Duration",
            about="Of single statements.",
            queries=quantiles(_QUERIES),
            unit="s", warn=0.05, bad=0.2,
        ),
        Panel(
            title="New connections",
            about="Opened by the pools. Many mean that the pools are too small, or that connections break.",
            queries={"opened": per_second("autoforge_django_db_new_connections_total")},
            unit="ops",
        ),
    ],
)  # fmt: skip

_CACHES = Row(
    title="Caches",
    panels=[
        Panel(
            title="Hit rates",
            about="Hits as part of the reads of each cache; the aim is 80 %.",
            queries={"{{cache}}": share_of_hits()},
            unit="percentunit", bad=0.8, is_better_high=True, maximum=1,
        ),
        Panel(
            title="Reads",
            about="By cache and by the layer that answered; load: nobody knew, it was computed.",
            queries={"{{cache}} {{layer}}": per_second("autoforge_cache_reads_total", "cache, layer")},
            unit="ops", stacked=True,
        ),
        Panel(
            title="Commands that failed",
            about="unreachable: Redis did not answer. bypassed: not asked, being away. refused: it said no.",
            queries={"{{reason}}": per_second("autoforge_redis_failures_total", "reason")},
            unit="ops", bad=1,
        ),
    ],
)  # fmt: skip

_REDIS = Row(
    title="Redis",
    panels=[
        Panel(
            title="Memory",
            about="In use, and the limit if there is one (0: none).",
            queries={
                "used": "max(autoforge_redis_used_memory_bytes)",
                "limit": "max(autoforge_redis_max_memory_bytes)",
            },
            unit="bytes", width=6,
        ),
        Panel(
            title="Hit rate",
            about="Of all look-ups of keys, by anybody.",
            queries={"hits": f"{per_second(_HITS)} / {per_second(_LOOKUPS)}"},
            unit="percentunit", maximum=1, width=6,
        ),
        Panel(
            title="Clients and waiting tasks",
            about="Connections to Redis, and messages that wait for a worker.",
            queries={"clients": "max(autoforge_redis_clients)", "tasks": "max(autoforge_redis_queued_tasks)"},
            width=6,
        ),
        Panel(
            title="Commands and lost keys",
            about="Evicted: dropped for want of memory, which costs hits. Expired: as intended.",
            queries={
                "commands": per_second("autoforge_redis_commands_total"),
                "evicted": per_second("autoforge_redis_evicted_keys_total"),
                "expired": per_second("autoforge_redis_expired_keys_total"),
            },
            unit="ops", width=6,
        ),
    ],
)  # fmt: skip

_GUARD = Row(
    title="Fallbacks",
    panels=[
        Panel(
            title="Limits counted without Redis",
            about="Leases of rate limits that a process counted alone.",
            queries={"leases": per_second("autoforge_rate_limit_local_total")},
            unit="ops", width=12,
        ),
        Panel(
            title="Slowest tenth of statements by database",
            about="90th percentile.",
            queries={"{{alias}}": quantile(0.9, _QUERIES, "alias")},
            unit="s", warn=0.05, bad=0.2, width=12,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="database-and-cache",
    title="Database and cache",
    about="PostgreSQL and its pools, Redis, and the caches.",
    rows=[_POOL, _STATEMENTS, _CACHES, _REDIS, _GUARD],
)
