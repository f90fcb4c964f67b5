"""What models and runs did, counted for Prometheus. Labels have few values: never a name a user chose."""

from typing import Any

from django.conf import settings
from prometheus_client import Counter, Histogram

from autoforge.cache_reads import reads
from evaluations.events import ResultRecorded, RunEnded, RunEvent, run_event
from evaluations.models import LIVE_STATES, ResultState, Run, RunState
from evaluations.reports import efficiency_of
from prompts.llm import observers
from prompts.llm.providers.base import Completion, ProviderError, Request

CALL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RUN_BUCKETS_S = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
EFFICIENCY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1)

model_calls = Counter("autoforge_model_calls_total", "Calls of models.", ["provider", "outcome"])
model_seconds = Histogram(
    "autoforge_model_call_seconds", "Duration of a successful call.", ["provider"], buckets=CALL_BUCKETS_S
)
model_ttft_seconds = Histogram(
    "autoforge_model_first_token_seconds",
    "Time to the first token of a streamed call.",
    ["provider"],
    buckets=CALL_BUCKETS_S,
)
model_tokens = Counter("autoforge_model_tokens_total", "Tokens read and written.", ["provider", "direction"])
model_cost = Counter("autoforge_model_cost_usd_total", "What calls cost, in US dollars.", ["provider"])
model_saved = Counter(
    "autoforge_model_saved_usd_total",
    "What answers from the cache, and of calls that were shared, would have cost.",
    ["provider"],
)
run_results = Counter("autoforge_run_results_total", "Recorded cells.", ["state"])
runs_ended = Counter("autoforge_runs_ended_total", "Runs by the state they ended in.", ["state"])
run_seconds = Histogram("autoforge_run_seconds", "How long ended runs were worked on.", buckets=RUN_BUCKETS_S)
run_efficiency = Histogram(
    "autoforge_run_parallel_efficiency_ratio",
    "Of ended runs that called models: (sum of call times / concurrency) / wall time.",
    buckets=EFFICIENCY_BUCKETS,
)


def observe() -> None:
    """Listen to model calls, cache look-ups and runs; called once a process."""
    # A rate sees the first event only if there was a zero before it.
    for state in ResultState:
        run_results.labels(state.value)
    for ended in set(RunState) - set(LIVE_STATES):
        runs_ended.labels(ended.value)
    observers.on_call.append(_count_call)
    observers.on_cache.append(_count_cache_read)
    observers.on_saved.append(_count_saved)
    run_event.connect(_count_run_event, dispatch_uid="monitoring.metrics")


def _count_call(request: Request, outcome: Completion | ProviderError, seconds: float) -> None:
    provider = request.endpoint.provider
    if isinstance(outcome, ProviderError):
        model_calls.labels(provider, outcome.code).inc()
        return
    model_calls.labels(provider, "ok").inc()
    model_seconds.labels(provider).observe(seconds)
    if outcome.ttft_ms is not None:
        model_ttft_seconds.labels(provider).observe(outcome.ttft_ms / 1000)
    model_tokens.labels(provider, "input").inc(outcome.usage.input_tokens or 0)
    model_tokens.labels(provider, "output").inc(outcome.usage.output_tokens or 0)
    model_cost.labels(provider).inc(float(outcome.cost_usd or 0))


def _count_cache_read(hit: bool) -> None:
    layer = "redis" if settings.REDIS_URL else "process"
    reads.labels("llm_responses", layer if hit else "load").inc()


def _count_saved(request: Request, completion: Completion) -> None:
    model_saved.labels(request.endpoint.provider).inc(float(completion.saved_usd or 0))


def _count_run_event(event: RunEvent, **_: Any) -> None:
    if isinstance(event, ResultRecorded):
        for result in event.results:
            run_results.labels(str(result["state"])).inc()
    elif isinstance(event, RunEnded):
        runs_ended.labels(event.state).inc()
        _measure_run(event)


def _measure_run(event: RunEnded) -> None:
    fields = ("started_at", "finished_at", "active_s", "call_ms", "concurrency", "total")
    run = Run.objects.only(*fields).get(pk=event.run_id)
    if run.wall_s is not None:
        run_seconds.observe(run.wall_s)
    if (efficiency := efficiency_of(run)) is not None:
        run_efficiency.observe(efficiency)
