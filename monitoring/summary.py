"""The installation's state in a few numbers, read from the metrics: what the `metrics` topic streams."""

import math
from collections import defaultdict
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from monitoring.exposition import registry

_REQUESTS = "autoforge_django_http_requests_latency_seconds_by_view_method"
_RESPONSES = "autoforge_django_http_responses_total_by_status"


def installation_summary() -> dict[str, Any]:
    """Totals since the processes started; latencies in milliseconds, memory in bytes. Staff only."""
    samples = _by_name(registry())
    return {
        "http": {
            "requests": _sum(samples[f"{_REQUESTS}_count"]),
            "latency_ms": {
                f"p{q}": _quantile_ms(samples[f"{_REQUESTS}_bucket"], q / 100) for q in (50, 95, 99)
            },
            "responses": _sums(samples[f"{_RESPONSES}_total"], "status"),
        },
        "models": {
            "calls": _sums(samples["autoforge_model_calls_total"], "outcome"),
            "tokens": _sums(samples["autoforge_model_tokens_total"], "direction"),
            "cost_usd": _sum(samples["autoforge_model_cost_usd_total"]),
            "cache": _sums(samples["autoforge_llm_cache_reads_total"], "outcome"),
        },
        "runs": {
            "ended": _sums(samples["autoforge_runs_ended_total"], "state"),
            "results": _sums(samples["autoforge_run_results_total"], "state"),
        },
        "websockets": {
            "connections": _sum(samples["autoforge_websocket_connections"]),
            "sent": _sum(samples["autoforge_websocket_messages_sent_total"]),
        },
        "pool": _sums(samples["autoforge_db_pool_connections"], "state"),
        "processes": {
            "resident_bytes": _sum(samples["autoforge_process_resident_memory_bytes"]),
            "cpu_seconds": _sum(samples["autoforge_process_cpu_seconds_total"]),
            "loop_lag_ms": {
                "p99": _quantile_ms(samples["autoforge_event_loop_lag_seconds_bucket"], 0.99),
            },
        },
    }


def _by_name(source: CollectorRegistry) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = defaultdict(list)
    for metric in source.collect():
        for sample in metric.samples:
            samples[sample.name].append(sample)
    return samples


def _sum(samples: list[Sample]) -> float:
    return sum(sample.value for sample in samples)


def _sums(samples: list[Sample], label: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for sample in samples:
        sums[sample.labels[label]] += sample.value
    return dict(sums)


def _quantile_ms(buckets: list[Sample], share: float) -> float | None:
    """The upper bound of the bucket in which `share` of all observations is reached; None without any."""
    counts = _bounds(buckets)
    total = counts.get(math.inf, 0.0)
    if not total:
        return None
    bound = next(bound for bound, count in sorted(counts.items()) if count >= share * total)
    return None if math.isinf(bound) else bound * 1000


def _bounds(buckets: list[Sample]) -> dict[float, float]:
    counts: dict[float, float] = defaultdict(float)
    for bucket in buckets:
        counts[float(bucket.labels["le"])] += bucket.value
    return counts
