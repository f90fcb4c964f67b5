"""Scorers of what was measured: time, cost, and why the model stopped."""

from __future__ import annotations

from decimal import Decimal

from evaluations.scorers.registry import binary, scorer, threshold_of
from evaluations.scorers.text import text
from evaluations.scorers.types import Output, Score, ScorerSpec, UnjudgeableError


@scorer("latency", reads=threshold_of, needs_value=False)
def latency(output: Output, limit_ms: float, spec: ScorerSpec) -> Score:
    """At most `threshold` milliseconds. A cached answer has no latency: error."""
    if output.cached or output.latency_ms is None:
        why = "the answer came from the cache" if output.cached else "no latency was measured"
        raise UnjudgeableError(f"{why}; run without the cache to measure latency")
    return binary(output.latency_ms <= limit_ms, f"{output.latency_ms:.0f} ms, allowed {limit_ms:g} ms")


@scorer("cost", reads=threshold_of, needs_value=False)
def cost(output: Output, limit_usd: float, spec: ScorerSpec) -> Score:
    """At most `threshold` US dollars. An unknown cost is an error."""
    if output.cost_usd is None:
        raise UnjudgeableError("the cost is unknown; give the endpoint its prices")
    # The shortest decimal of the float is what was written: 0.1 allows exactly $0.1.
    return binary(output.cost_usd <= Decimal(str(limit_usd)), f"${output.cost_usd}, allowed ${limit_usd:g}")


@scorer("finish-reason", reads=text)
def finish_reason(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """The model stopped for the reason named, in any case. An unknown reason is an error."""
    if output.finish_reason is None:
        raise UnjudgeableError("the provider gave no finish reason")
    actual = output.finish_reason
    return binary(actual.lower() == expected.lower(), f"finished with {actual!r}, wanted {expected!r}")
