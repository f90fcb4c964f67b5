"""What a load of WebSocket clients has shown, in figures."""

import math
from argparse import Namespace
from dataclasses import dataclass, field
from statistics import median, stdev

from monitoring.perf.crowd import Connected, Heard, Told
from monitoring.perf.load import Measurement
from monitoring.perf.recording import new_histogram, percentile_ms, record
from monitoring.perf.report import Figure, Latencies, Report


@dataclass
class Seen:
    """What the generator notes while the load runs."""

    emitted: dict[int, float] = field(default_factory=dict)
    not_emitted: set[int] = field(default_factory=set)
    rss_mib: list[float] = field(default_factory=list)
    rest: Measurement | None = None


def connecting(connected: Connected, options: Namespace) -> list[Figure]:
    """How many, how fast, and the slowest handshakes."""
    times = sorted(connected.handshakes_ms)
    late = times[int(len(times) * 0.99)] if times else 0.0
    return [
        Figure(name="connected", value=len(times), better="higher", must=options.connections),
        Figure(name="connect rate", value=round(len(times) / connected.seconds), unit="/s"),
        Figure(name="handshake P99", value=late, unit="ms", better="lower"),
    ]


def memory(before: float | None, held: float | None, seen: Seen, options: Namespace) -> list[Figure]:
    """Sums over the web processes; nothing from afar."""
    if before is None or held is None:
        return []
    most = max([held, *seen.rss_mib])
    each = (held - before) * 1024 / options.connections
    return [
        Figure(name="web RSS before", value=round(before, 1), unit="MiB"),
        Figure(name="web RSS, all connected", value=round(held, 1), unit="MiB"),
        Figure(name="web RSS at most", value=round(most, 1), unit="MiB", better="lower", must=512, aim=420),
        Figure(name="memory of a connection", value=round(each, 1), unit="KiB", better="lower"),
    ]


def _last_ms(seen: Seen, events: list[Heard]) -> list[float]:
    return [(event.last - seen.emitted[event.number]) * 1000 for event in events]


def delivery(seen: Seen, told: Told, readers: int) -> list[Figure]:
    """How late the last of `readers` had each event, and how many events some of them missed."""
    last = _last_ms(seen, told.events) or [0.0]
    received = sum(event.count for event in told.events if event.number not in seen.not_emitted)
    expected = (len(seen.emitted) - len(seen.not_emitted)) * readers
    noise = stdev(last) if len(last) > 1 else None
    return [
        Figure(
            name="event until the last client, median",
            value=round(median(last), 1),
            unit="ms",
            better="lower",
            noise=noise,
            aim=250,
        ),
        Figure(
            name="event until the last client, worst",
            value=round(max(last), 1),
            unit="ms",
            better="lower",
            noise=noise,
            must=1000,
            aim=250,
        ),
        Figure(
            name="missed events",
            value=max(0, expected - received) + told.gaps,
            better="lower",
            must=0,
        ),
    ]


def ends(told: Told, deaf: int, closed_slow: float) -> list[Figure]:
    """The server counts whom it closed for being slow; not all of those still hear the reason."""
    others = sum(told.closes.values()) - (deaf if deaf else 0)
    figures = [Figure(name="other closes", value=max(0, others), better="lower", must=0)]
    if deaf:
        figures.append(Figure(name="closed with 4408", value=closed_slow, better="higher", must=deaf))
    return figures


def add_beside(report: Report, seen: Seen, told: Told, options: Namespace) -> None:
    """REST requests and completions that were asked for meanwhile."""
    if seen.rest is not None:
        report.latencies += seen.rest.recorder.latencies(options.duration)
        report.figures += [
            Figure(
                name="REST P95",
                value=seen.rest.recorder.percentile_ms(95),
                unit="ms",
                better="lower",
                must=200,
            ),
            Figure(name="REST errors", value=seen.rest.recorder.error_count, better="lower", must=0),
        ]
    for name, values in (
        ("first token beyond the model's time", told.first_token_ms),
        ("whole completion beyond the model's time", told.completed_ms),
    ):
        if options.completions:
            report.figures += _quantiles(name, sorted(values))


def _quantiles(name: str, values: list[float]) -> list[Figure]:
    return [
        Figure(
            name=f"{name}, P{percent}",
            value=values[min(int(len(values) * percent / 100), len(values) - 1)] if values else math.nan,
            unit="ms",
            better="lower",
        )
        for percent in (50, 95)
    ]


def latencies(seen: Seen, told: Told, seconds: float) -> Latencies:
    """Per event: from its request until the first, middle, 99th of a hundred and last client has it."""
    histogram = new_histogram()
    for each in _last_ms(seen, told.events):
        record(histogram, each / 1000)
    ms = {name: round(_median_ms(seen, told.events, name), 1) for name in ("first", "p50", "p99", "last")} | {
        "last p95": round(percentile_ms(histogram, 95), 1),
        "max": round(percentile_ms(histogram, 100), 1),
    }
    return Latencies(
        kind="event",
        count=len(told.events),
        errors={},
        per_s=round(len(told.events) / seconds, 1),
        ms=ms,
        hdr=histogram.encode().decode(),
    )


def _median_ms(seen: Seen, events: list[Heard], name: str) -> float:
    values = [(getattr(event, name) - seen.emitted[event.number]) * 1000 for event in events]
    return median(values) if values else math.nan


def add_notes(report: Report, connected: Connected, told: Told, each_mib: list[float]) -> None:
    """The memory of each process; what failed and how connections ended, by its own name."""
    if each_mib:
        sizes = " + ".join(f"{size:.1f}" for size in each_mib)
        report.notes.append(f"RSS of each web process, all connected: {sizes} MiB.")
    for words, counts in (("Failures", told.failures or connected.failures), ("Closes", told.closes)):
        if counts:
            report.notes.append(f"{words}: {', '.join(f'{n} × {name}' for name, n in counts.items())}.")
