"""Is everything well, and if not: where to look."""

from monitoring.grafana.panels import Dashboard, Panel, Row
from monitoring.grafana.promql import per_second, share_of_hits

_NOW = Row(
    title="Right now",
    panels=[
        Panel(
            title="P95 latency",
            about="Of requests that wait for no model, over 5 minutes. The promise is 200 ms.",
            queries={"P95": "autoforge:http_request_seconds:p95_5m"},
            kind="stat", unit="s", width=4, height=5, warn=0.1, bad=0.2,
        ),
        Panel(
            title="Requests",
            about="Answers a second, of every status.",
            queries={"requests": "autoforge:http_requests:rate5m"},
            kind="stat", unit="reqps", width=4, height=5,
        ),
        Panel(
            title="Server errors",
            about="Part of the answers with a status of 500 and above.",
            queries={"errors": "autoforge:http_errors:ratio_rate5m"},
            kind="stat", unit="percentunit", width=4, height=5, warn=0.001, bad=0.01,
        ),
        Panel(
            title="Cost an hour",
            about="What model calls cost at the pace of the last minutes.",
            queries={"cost": f"3600 * {per_second('autoforge_model_cost_usd_total')}"},
            kind="stat", unit="currencyUSD", width=4, height=5,
        ),
        Panel(
            title="Fullest process",
            about="Resident memory of the process nearest to its limit, as part of that limit.",
            queries={"memory": "max(autoforge:process_resident_memory:ratio)"},
            kind="stat", unit="percentunit", width=4, height=5, warn=0.7, bad=0.8, maximum=1,
        ),
        Panel(
            title="Services",
            about="1: Prometheus reaches AutoForge, and AutoForge its database and Redis.",
            queries={
                "metrics": 'min(up{job="autoforge"})',
                "database": "min(autoforge_db_up)",
                "Redis": "min(autoforge_redis_up)",
            },
            kind="stat", width=4, height=5, bad=1, maximum=1, is_better_high=True,
        ),
    ],
)  # fmt: skip

_WORK = Row(
    title="Work",
    panels=[
        Panel(
            title="Answers by status",
            about="4xx are the callers' mistakes and limits, 5xx are ours or a vendor's.",
            queries={"{{status}}": per_second("autoforge_http_responses_total", "status")},
            unit="reqps", stacked=True,
        ),
        Panel(
            title="Latency",
            about="Percentiles of requests that wait for no model, over 5 minutes.",
            queries={
                f"P{share}": f"autoforge:http_request_seconds:p{share}_5m" for share in (50, 95, 99)
            },
            unit="s", warn=0.1, bad=0.2,
        ),
        Panel(
            title="Timeouts",
            about="What waited in vain: bodies of requests, database connections, models.",
            queries={"{{kind}}": "sum by (kind) (autoforge:timeouts:rate5m)"},
            unit="ops", bad=0.1,
        ),
        Panel(
            title="Model calls",
            about="Calls of models by how they ended; retries count.",
            queries={"{{outcome}}": per_second("autoforge_model_calls_total", "outcome")},
            unit="ops", stacked=True,
        ),
        Panel(
            title="Cells recorded",
            about="Results of evaluations a second, by state.",
            queries={"{{state}}": per_second("autoforge_run_results_total", "state")},
            unit="ops", stacked=True,
        ),
        Panel(
            title="Cache hit rates",
            about="Hits as part of the reads of each cache; the aim is 80 %.",
            queries={"{{cache}}": share_of_hits()},
            unit="percentunit", bad=0.8, is_better_high=True, maximum=1,
        ),
    ],
)  # fmt: skip

_MACHINE = Row(
    title="Machine and processes",
    panels=[
        Panel(
            title="CPU by kind of process",
            about="Cores in use.",
            queries={"{{kind}}": per_second("autoforge_process_cpu_seconds_total", "kind")},
            unit="short", stacked=True, width=6,
        ),
        Panel(
            title="CPU of the machine",
            about="Part of all cores that is busy, with everything else that runs there.",
            queries={"{{instance}}": "max by (instance) (autoforge_machine_cpu_ratio)"},
            unit="percentunit", warn=0.8, bad=0.95, maximum=1, width=6,
        ),
        Panel(
            title="Memory by process",
            about="Resident memory of each process.",
            queries={
                "{{kind}} {{pid}}": "sum by (kind, pid) (autoforge_process_resident_memory_bytes)",
                "limit": "max(autoforge_process_memory_limit_bytes)",
            },
            unit="bytes", width=6,
        ),
        Panel(
            title="Event loop lag",
            about="99th percentile of how late the event loops of web processes wake up.",
            queries={"P99": "autoforge:event_loop_lag_seconds:p99_5m"},
            unit="s", warn=0.1, bad=0.25, width=6,
        ),
        Panel(
            title="Memory guard",
            about="0: calm. 1: above the soft limit, trims, lets no WebSocket in. 2: above the limit.",
            queries={"{{kind}}": "max by (kind) (autoforge_memory_guard_level)"},
            warn=1, bad=2, maximum=2,
        ),
        Panel(
            title="Trimmed",
            about="Memory that processes gave back at their soft limit.",
            queries={"{{kind}}": per_second("autoforge_memory_trimmed_bytes_total", "kind")},
            unit="Bps",
        ),
        Panel(
            title="Processes started and ended for memory",
            about="Within an hour. What is ended at its limit is replaced by its supervisor.",
            queries={
                "started {{kind}}": "sum by (kind) (increase(autoforge_process_starts_total[1h]))",
                "at the limit {{kind}}": "sum by (kind) (increase(autoforge_memory_restarts_total[1h]))",
            },
            bad=3,
        ),
    ],
)  # fmt: skip

BOARD = Dashboard(
    name="overview",
    title="Overview",
    about="Is everything well, and if not: where to look.",
    rows=[_NOW, _WORK, _MACHINE],
)
