"""What is slow: requests by view and calls by provider, read from the histograms of all processes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.samples import Sample

from monitoring.exposition import samples_by_name
from monitoring.numbers import apart, quantile

_REQUESTS = "autoforge_http_request_seconds"
# Requests of machines that watch us: nobody waits for them.
_WATCHERS = ("health-live", "health-ready", "metrics")
_CALLS = "autoforge_model_call_seconds"
_FIRST_TOKENS = "autoforge_model_first_token_seconds"
_OUTCOMES = "autoforge_model_calls_total"
_COSTS = "autoforge_model_cost_usd_total"


@dataclass
class Timing:
    """One histogram: how often, how long in all, and the counts up to each bound in seconds."""

    name: str
    count: float = 0
    total_s: float = 0
    bounds: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    share: float = 0.0

    @property
    def mean_ms(self) -> float | None:
        return self.total_s / self.count * 1000 if self.count else None

    @property
    def p50_ms(self) -> float | None:
        return self._quantile_ms(0.5)

    @property
    def p95_ms(self) -> float | None:
        return self._quantile_ms(0.95)

    def _quantile_ms(self, share: float) -> float | None:
        found = quantile(apart(self.bounds), share)
        return None if found is None else found * 1000


@dataclass
class ProviderTiming:
    """Calls of one provider's models: outcomes, durations of the good ones, cost."""

    name: str
    calls: Timing
    first_tokens: Timing
    outcomes: dict[str, float] = field(default_factory=dict)
    cost_usd: float = 0.0

    @property
    def failed(self) -> dict[str, float]:
        return {code: count for code, count in self.outcomes.items() if code != "ok" and count}


@dataclass
class Timings:
    """Since the processes started."""

    views: list[Timing]
    providers: list[ProviderTiming]


def timings(limit: int) -> Timings:
    """Views by their share of all request time, the greatest first, and every provider."""
    samples = samples_by_name()
    views = _timings(samples, _REQUESTS, ("method", "view"))
    views = {name: view for name, view in views.items() if not name.endswith(_WATCHERS)}
    whole_s = sum(view.total_s for view in views.values()) or 1.0
    for view in views.values():
        view.share = view.total_s / whole_s
    slowest = sorted(views.values(), key=lambda view: view.total_s, reverse=True)
    return Timings(slowest[:limit], _providers(samples))


def _timings(samples: dict[str, list[Sample]], metric: str, labels: Iterable[str]) -> dict[str, Timing]:
    found: dict[str, Timing] = {}

    def timing_of(sample: Sample) -> Timing:
        name = " ".join(sample.labels.get(label, "") for label in labels)
        return found.setdefault(name, Timing(name))

    for sample in samples[f"{metric}_count"]:
        timing_of(sample).count += sample.value
    for sample in samples[f"{metric}_sum"]:
        timing_of(sample).total_s += sample.value
    for sample in samples[f"{metric}_bucket"]:
        timing_of(sample).bounds[float(sample.labels["le"])] += sample.value
    return found


def _providers(samples: dict[str, list[Sample]]) -> list[ProviderTiming]:
    calls = _timings(samples, _CALLS, ["provider"])
    first = _timings(samples, _FIRST_TOKENS, ["provider"])
    found: dict[str, ProviderTiming] = {}
    for sample in samples[_OUTCOMES]:
        name = sample.labels["provider"]
        empty = Timing(name)
        provider = found.setdefault(
            name, ProviderTiming(name, calls.get(name, empty), first.get(name, empty))
        )
        outcomes = provider.outcomes
        outcomes[sample.labels["outcome"]] = outcomes.get(sample.labels["outcome"], 0) + sample.value
    for sample in samples[_COSTS]:
        if provider_found := found.get(sample.labels["provider"]):
            provider_found.cost_usd += sample.value
    return sorted(found.values(), key=lambda provider: provider.calls.total_s, reverse=True)
