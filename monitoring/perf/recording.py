"""Latencies by kind of request and by slice of time: their distribution, and how much it wavers."""

from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import stdev
from typing import Any

# A port of Gil Tene's High Dynamic Range histogram.
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # the library has no types

from monitoring.perf.report import Latencies

SLICES = 10
_MAX_US = 600_000_000
_DIGITS = 3
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


def new_histogram() -> Any:
    """Of microseconds from 1 to 10 minutes, to three significant digits."""
    return HdrHistogram(1, _MAX_US, _DIGITS)


def record(histogram: Any, seconds: float) -> None:
    """Add a duration; what is out of range counts as the nearest value in it."""
    histogram.record_value(min(max(int(seconds * 1e6), 1), _MAX_US))


def percentile_ms(histogram: Any, percent: float) -> float:
    """The value below which `percent` of all lie, in milliseconds; 0 of an empty histogram."""
    return float(histogram.get_value_at_percentile(percent)) / 1000 if histogram.total_count else 0.0


class Recorder:
    """What came back of one load of `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._slice_s = seconds / SLICES
        self.slices = [new_histogram() for _ in range(SLICES)]
        self.kinds: dict[str, Any] = defaultdict(new_histogram)
        self.errors: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, kind: str, at_s: float, latency_s: float, error: str = "") -> None:
        """A request of `kind` that was due `at_s` after the start; `error` is a status or a failure."""
        record(self.kinds[kind], latency_s)
        record(self.slices[min(int(at_s / self._slice_s), SLICES - 1)], latency_s)
        if error:
            self.errors[kind][error] += 1

    @property
    def count(self) -> int:
        return sum(histogram.total_count for histogram in self.kinds.values())

    @property
    def error_count(self) -> int:
        return sum(counter.total() for counter in self.errors.values())

    def total(self) -> Any:
        """All kinds together."""
        total = new_histogram()
        for histogram in self.kinds.values():
            total.add(histogram)
        return total

    def percentile_ms(self, percent: float) -> float:
        return percentile_ms(self.total(), percent)

    def noise_ms(self, percent: float) -> float:
        """Standard deviation of a percentile over the slices of time."""
        return self._deviation(lambda histogram: percentile_ms(histogram, percent))

    def rate_noise(self) -> float:
        """Standard deviation of the requests per second over the slices of time."""
        return self._deviation(lambda histogram: histogram.total_count / self._slice_s)

    def latencies(self, seconds: float) -> list[Latencies]:
        """One row a kind, and `total` when there are several."""
        rows = [
            _row(kind, histogram, self.errors[kind], seconds)
            for kind, histogram in sorted(self.kinds.items())
        ]
        if len(rows) > 1:
            rows.append(_row("total", self.total(), sum(self.errors.values(), Counter()), seconds))
        return rows

    def _deviation(self, value: Callable[[Any], float]) -> float:
        values = [value(histogram) for histogram in self.slices if histogram.total_count]
        return stdev(values) if len(values) > 1 else 0.0


def _row(kind: str, histogram: Any, errors: Counter[str], seconds: float) -> Latencies:
    values = {name: round(percentile_ms(histogram, percent), 3) for name, percent in _PERCENTILES.items()}
    count = histogram.total_count
    return Latencies(
        kind=kind,
        count=count,
        errors=dict(errors),
        per_s=round(count / seconds, 1),
        ms=values,
        hdr=histogram.encode().decode(),
    )
