"""The installation's state in a few numbers, read from the metrics: what the `metrics` topic streams."""

import math
import os
from collections import defaultdict
from typing import Any

from django.conf import settings
from prometheus_client.samples import Sample

from monitoring.exposition import samples_by_name
from monitoring.numbers import Counts, apart, quantile

Samples = dict[str, list[Sample]]
_TIMEOUT = "408"
# Requests of machines that watch us; they would hide what people wait for.
_WATCHERS = ("health-live", "health-ready", "metrics")


def installation_summary() -> dict[str, Any]:
    """Totals since the processes started; latencies in milliseconds, memory in bytes. Staff only.

    None is what nobody knows, e.g. a percentile of nothing. `latency_ms` is of the requests that wait for no
    model. The counts of `…_buckets` are of one bucket each; the last one has no bound.
    """
    samples = samples_by_name()
    return {
        "http": _http(samples),
        "models": _models(samples),
        "caches": _caches(samples),
        "runs": _runs(samples),
        "websockets": _websockets(samples),
        "pool": _pool(samples),
        "redis": _redis(samples),
        "processes": _processes(samples),
    }


def _http(samples: Samples) -> dict[str, Any]:
    every = samples["autoforge_http_request_seconds_bucket"]
    own = [
        bucket
        for bucket in every
        if bucket.labels["handler"] == "sync" and bucket.labels["view"] not in _WATCHERS
    ]
    statuses = _sums(samples["autoforge_http_responses_total"], "status")
    return {
        "requests": sum(statuses.values()),
        "in_flight": _sum(samples["autoforge_http_requests_in_flight"]),
        "latency_ms": _percentiles_ms(own),
        "latency_buckets": _rows_ms(own),
        "responses": statuses,
        "timeouts": statuses.get(_TIMEOUT, 0.0)
        + _sum(samples["autoforge_db_pool_timeouts_total"])
        + _sums(samples["autoforge_model_calls_total"], "outcome").get("timeout", 0.0),
        "clients_left": _sum(samples["autoforge_http_clients_left_total"]),
        "rate_limited": _sum(samples["autoforge_rate_limit_refused_total"]),
    }


def _models(samples: Samples) -> dict[str, Any]:
    answers = _caches(samples).get("llm_responses", {"hits": 0.0, "misses": 0.0})
    return {
        "calls": _sums(samples["autoforge_model_calls_total"], "outcome"),
        "tokens": _sums(samples["autoforge_model_tokens_total"], "direction"),
        "cost_usd": _sum(samples["autoforge_model_cost_usd_total"]),
        "saved_usd": _sum(samples["autoforge_model_saved_usd_total"]),
        "cache": {"hit": answers["hits"], "miss": answers["misses"]},
        "latency_ms": _percentiles_ms(samples["autoforge_model_call_seconds_bucket"]),
        "first_token_ms": _percentiles_ms(samples["autoforge_model_first_token_seconds_bucket"]),
    }


def _caches(samples: Samples) -> dict[str, dict[str, float]]:
    caches: dict[str, dict[str, float]] = defaultdict(lambda: {"hits": 0.0, "misses": 0.0})
    for sample in samples["autoforge_cache_reads_total"]:
        outcome = "misses" if sample.labels["layer"] == "load" else "hits"
        caches[sample.labels["cache"]][outcome] += sample.value
    return dict(caches)


def _runs(samples: Samples) -> dict[str, Any]:
    """`parallel_efficiency` is the mean of the runs that ended and called models."""
    efficiency = "autoforge_run_parallel_efficiency_ratio"
    measured = _sum(samples[f"{efficiency}_count"])
    return {
        "ended": _sums(samples["autoforge_runs_ended_total"], "state"),
        "results": _sums(samples["autoforge_run_results_total"], "state"),
        "by_state": _sums(samples["autoforge_runs"], "state"),
        "cells_open": _sum(samples["autoforge_run_cells_open"]),
        "workers": _sum(samples["autoforge_run_workers"]),
        "budget_usd": _sum(samples["autoforge_run_budget_usd"]),
        "budget_spent_usd": _sum(samples["autoforge_run_budget_spent_usd"]),
        "parallel_efficiency": _sum(samples[f"{efficiency}_sum"]) / measured if measured else None,
    }


def _websockets(samples: Samples) -> dict[str, Any]:
    names = {
        "connections": "connections",
        "capacity": "capacity",
        "subscriptions": "subscriptions",
        "sent": "messages_sent_total",
        "received": "messages_received_total",
        "dropped": "events_dropped_total",
        "outbox": "outbox_frames",
        "evicted": "slow_closed_total",
        "refused": "refused_total",
    }
    return {key: _sum(samples[f"autoforge_websocket_{name}"]) for key, name in names.items()}


def _pool(samples: Samples) -> dict[str, Any]:
    """`wait_ms` is the 95th percentile."""
    waits = samples["autoforge_db_pool_wait_seconds_bucket"]
    states = _sums(samples["autoforge_db_pool_connections"], "state")
    return {state: states.get(state, 0.0) for state in ("in_use", "idle", "overflow")} | {
        "limit": _sum(samples["autoforge_db_pool_limit"]),
        "wait_ms": _quantile_ms(waits, 0.95),
        "wait_buckets": _rows_ms(waits),
        "timeouts": _sum(samples["autoforge_db_pool_timeouts_total"]),
    }


def _redis(samples: Samples) -> dict[str, Any]:
    lookups = _sums(samples["autoforge_redis_keyspace_lookups_total"], "outcome")
    total = sum(lookups.values())
    return {
        "up": _only(samples["autoforge_redis_up"]),
        "used_memory_bytes": _only(samples["autoforge_redis_used_memory_bytes"]),
        "max_memory_bytes": _only(samples["autoforge_redis_max_memory_bytes"]),
        "hits": lookups.get("hit", 0.0),
        "misses": lookups.get("miss", 0.0),
        "hit_rate": lookups.get("hit", 0.0) / total if total else None,
        "clients": _only(samples["autoforge_redis_clients"]),
        "queued_tasks": _only(samples["autoforge_redis_queued_tasks"]),
    }


def _processes(samples: Samples) -> dict[str, Any]:
    """`limit_bytes` is that of one process, None without one."""
    residents = samples["autoforge_process_resident_memory_bytes"]
    lags = samples["autoforge_event_loop_lag_seconds_bucket"]
    return {
        "resident_bytes": _sum(residents),
        "limit_bytes": settings.MEMORY_LIMIT_BYTES or None,
        "cpu_seconds": _sum(samples["autoforge_process_cpu_seconds_total"]),
        "machine_cpu_ratio": _only(samples["autoforge_machine_cpu_ratio"]),
        "loop_lag_ms": _percentiles_ms(lags),
        "loop_lag_buckets": _rows_ms(lags),
        "by_process": [
            {
                "pid": int(each.labels.get("pid", os.getpid())),
                "kind": each.labels["kind"],
                "resident_bytes": each.value,
            }
            for each in sorted(residents, key=lambda each: sorted(each.labels.items()))
        ],
    }


def _sum(samples: list[Sample]) -> float:
    return sum((sample.value for sample in samples), 0.0)


def _only(samples: list[Sample]) -> float | None:
    """The value of a gauge that one process sets for all; None before it has."""
    return samples[0].value if samples else None


def _sums(samples: list[Sample], label: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for sample in samples:
        sums[sample.labels[label]] += sample.value
    return dict(sums)


def _percentiles_ms(buckets: list[Sample]) -> dict[str, float | None]:
    return {f"p{q}": _quantile_ms(buckets, q / 100) for q in (50, 95, 99)}


def _quantile_ms(buckets: list[Sample], share: float) -> float | None:
    found = quantile(_counts(buckets), share)
    return None if found is None else found * 1000


def _rows_ms(buckets: list[Sample]) -> list[dict[str, float | None]]:
    return [
        {"le_ms": None if math.isinf(bound) else bound * 1000, "count": count}
        for bound, count in _counts(buckets)
    ]


def _counts(buckets: list[Sample]) -> Counts:
    upto: dict[float, float] = defaultdict(float)
    for bucket in buckets:
        upto[float(bucket.labels["le"])] += bucket.value
    return apart(upto)
