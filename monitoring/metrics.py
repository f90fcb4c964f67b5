"""What models and runs did, counted for Prometheus. Labels have few values: never a name a user chose."""

from typing import Any

from prometheus_client import Counter, Histogram

from evaluations.events import ResultRecorded, RunEnded, RunEvent, run_event
from prompts.llm import observers
from prompts.llm.providers.base import Completion, ProviderError, Request

CALL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

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
cache_reads = Counter("autoforge_llm_cache_reads_total", "Look-ups in the response cache.", ["outcome"])
run_results = Counter("autoforge_run_results_total", "Recorded cells.", ["state"])
runs_ended = Counter("autoforge_runs_ended_total", "Runs by the state they ended in.", ["state"])


def observe() -> None:
    """Listen to model calls, cache look-ups and runs; called once a process."""
    observers.on_call.append(_count_call)
    observers.on_cache.append(_count_cache_read)
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
    cache_reads.labels("hit" if hit else "miss").inc()


def _count_run_event(event: RunEvent, **_: Any) -> None:
    if isinstance(event, ResultRecorded):
        for result in event.results:
            run_results.labels(str(result["state"])).inc()
    elif isinstance(event, RunEnded):
        runs_ended.labels(event.state).inc()
