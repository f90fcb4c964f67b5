"""A run in numbers: aggregates over its results, with memory of a few bytes a cell."""

from array import array
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import msgspec
from django.db.models import Count, Q, Sum

from autoforge.caching import read_once
from evaluations.models import Result, ResultState, Run
from evaluations.schemas import columns_of
from evaluations.statistics import (
    mean_bootstrap_interval,
    parallel_efficiency,
    percentile,
    wilson_interval,
)

_CHUNK_ROWS = 2_000
# The report of the largest run takes no longer; other processes wait this long for it.
_REPORT_S = 30.0
_SEED = 0


class Percentiles(msgspec.Struct):
    """Of the model calls; what came from the cache took no call."""

    p50: float | None
    p95: float | None
    p99: float | None


class TokenSums(msgspec.Struct):
    input: int
    output: int


class Metric(msgspec.Struct):
    """One scorer, or all that share a metric name: the mean of their values, and how many there were."""

    mean: float
    count: int


class ColumnReport(msgspec.Struct, kw_only=True):
    """One prompt version on one model. Errors are in none of the rates and scores."""

    column: int
    prompt: str
    version: int | None
    model: str
    cells: int
    passed: int
    failed: int
    errors: int
    pass_rate: float | None
    pass_rate_ci95: tuple[float, float] | None
    mean_score: float | None
    mean_score_ci95: tuple[float, float] | None
    latency_ms: Percentiles
    tokens: TokenSums
    cost_usd: float
    saved_usd: float
    cache_hits: int
    metrics: dict[str, Metric]


class RunReport(msgspec.Struct, kw_only=True):
    """All columns, and how well the run used its concurrency."""

    run: str
    state: str
    total: int
    done: int
    wall_s: float | None
    parallel_efficiency: float | None
    columns: list[ColumnReport]


def efficiency_of(run: Run) -> float | None:
    """(Sum of call times / concurrency) / wall time; None while unknown, or when no model was called here."""
    wall_s = run.wall_s
    if not wall_s or not run.call_ms or run.is_external:
        return None
    return parallel_efficiency(run.call_ms / 1000, min(run.concurrency, run.total), wall_s)


def report_of(run: Run) -> RunReport:
    """The report; that of a run that has ended is kept in the cache `evaluation_results`."""
    if run.is_live or run.is_external:  # scores may come after the end
        return _fresh_report(run)
    key = f"report:{run.pk}:{run.state}:{run.done}:{run.finished_at:%s.%f}"
    encoded = read_once(
        "evaluation_results", key, partial(_encoded, run), load_s=_REPORT_S, keep=partial(_is_as_it_was, run)
    )
    return msgspec.json.decode(encoded, type=RunReport)


def _encoded(run: Run) -> bytes:
    return msgspec.json.encode(_fresh_report(run))


def _is_as_it_was(run: Run) -> bool:
    """Whether the run was not resumed meanwhile."""
    return Run.objects.filter(pk=run.pk, state=run.state, done=run.done).exists()


def _fresh_report(run: Run) -> RunReport:
    sums = {row["column"]: row for row in _sums(run)}
    series = _series(run)
    return RunReport(
        run=str(run.pk),
        state=run.state,
        total=run.total,
        done=run.done,
        wall_s=run.wall_s,
        parallel_efficiency=efficiency_of(run),
        columns=[
            _column(index, name, sums.get(index, {}), series[index])
            for index, name in enumerate(columns_of(run))
        ],
    )


def _sums(run: Run) -> Any:
    """One row a column, by one statement."""
    return (
        Result.objects.filter(run=run)
        .order_by()
        .values("column")
        .annotate(
            cells=Count("pk"),
            n_passed=Count("pk", filter=Q(state=ResultState.PASSED)),
            n_failed=Count("pk", filter=Q(state=ResultState.FAILED)),
            n_errors=Count("pk", filter=Q(state=ResultState.ERROR)),
            n_cached=Count("pk", filter=Q(cached=True)),
            tokens_in=Sum("input_tokens"),
            tokens_out=Sum("output_tokens"),
            cost=Sum("cost_usd"),
            saved=Sum("saved_usd"),
        )
    )


@dataclass
class _Series:
    """The values of a column that no sum can stand for: 8 bytes each."""

    scores: "array[float]" = field(default_factory=lambda: array("d"))
    latencies_ms: "array[float]" = field(default_factory=lambda: array("d"))
    metrics: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, score: float | None, latency_ms: float | None, cached: bool, rows: list[Any]) -> None:
        if score is not None:
            self.scores.append(score)
        if latency_ms is not None and not cached:
            self.latencies_ms.append(latency_ms)
        for row in rows:
            if row["value"] is not None:
                name = row["metric"] or row["scorer"]
                total, count = self.metrics.get(name, (0.0, 0))
                self.metrics[name] = (total + row["value"], count + 1)


def _series(run: Run) -> list[_Series]:
    """The series of every column, in one pass over the results."""
    series = [_Series() for _ in range(run.columns)]
    rows = (
        Result.objects.filter(run=run)
        .order_by()
        .values_list("column", "score", "latency_ms", "cached", "scores")
    )
    for column, *values in rows.iterator(chunk_size=_CHUNK_ROWS):
        series[column].add(*values)
    return series


def _column(index: int, name: Any, sums: dict[str, Any], series: _Series) -> ColumnReport:
    passed, failed = sums.get("n_passed", 0), sums.get("n_failed", 0)
    scores, latencies = series.scores, series.latencies_ms
    return ColumnReport(
        column=index,
        prompt=name.prompt,
        version=name.version,
        model=name.model,
        cells=sums.get("cells", 0),
        passed=passed,
        failed=failed,
        errors=sums.get("n_errors", 0),
        pass_rate=passed / (passed + failed) if passed + failed else None,
        pass_rate_ci95=wilson_interval(passed, passed + failed),
        mean_score=fmean(scores) if scores else None,
        mean_score_ci95=mean_bootstrap_interval(scores, seed=_SEED),
        latency_ms=Percentiles(*(percentile(latencies, q) for q in (50, 95, 99))),
        tokens=TokenSums(sums.get("tokens_in") or 0, sums.get("tokens_out") or 0),
        cost_usd=float(sums.get("cost") or 0),
        saved_usd=float(sums.get("saved") or 0),
        cache_hits=sums.get("n_cached", 0),
        metrics={key: Metric(total / count, count) for key, (total, count) in series.metrics.items()},
    )
