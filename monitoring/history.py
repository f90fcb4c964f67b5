"""Remembers the installation's numbers: every 10 s for two hours, 1 min for a day, 10 min for a week.

One process records, beat or the only one there is; should two do so, nothing is written twice. The number
of rows is bounded by the tiers.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
from django.db.models import Q

from monitoring.models import MetricSample
from monitoring.numbers import Numbers, numbers_of, worst_of
from monitoring.summary import installation_summary

# Seconds between samples, and how long they are kept: a little longer than the range that shows them.
TIERS = {
    10: timedelta(hours=2),
    60: timedelta(hours=26),
    600: timedelta(days=8),
}
INTERVAL_S = min(TIERS)
# Ranges of the dashboard: the tier that is read, its length, and the seconds between two points.
RANGES = {
    "1h": (10, timedelta(hours=1), 10),
    "24h": (60, timedelta(hours=24), 240),
    "7d": (600, timedelta(days=7), 1_800),
}


class History(msgspec.Struct):
    """Columns: `numbers[name][i]` is what `name` was at `at[i]`, a Unix time; null where it is unknown.

    Counts are totals since the processes started: a rate is a difference, and where a total falls the
    processes have started again.
    """

    range: str
    step_s: int
    at: list[float]
    numbers: dict[str, list[float | None]]


def record(now: datetime | None = None) -> int:
    """Write the samples of this moment that are due; how many were. May be called at any time, by anybody."""
    now = now or datetime.now(UTC)
    due = {resolution: _floor(now, resolution) for resolution in TIERS}
    wanted = Q()
    for resolution, at in due.items():
        wanted |= Q(resolution_s=resolution, at=at)
    known = set(MetricSample.objects.filter(wanted).values_list("resolution_s", flat=True))
    missing = {resolution: at for resolution, at in due.items() if resolution not in known}
    if missing:
        _write(missing, numbers_of(installation_summary()))
        _prune(now, missing)
    return len(missing)


def history(name: str, now: datetime | None = None) -> History:
    """The range `name`, one of RANGES, oldest first. One query."""
    tier, length, step_s = RANGES[name]
    since = (now or datetime.now(UTC)) - length
    rows = MetricSample.objects.filter(resolution_s=tier, at__gte=since).order_by("at")
    points = list(_thinned(rows.values_list("at", "numbers"), step_s))
    names = sorted({number for _, numbers in points for number in numbers})
    return History(
        range=name,
        step_s=step_s,
        at=[at.timestamp() for at, _ in points],
        numbers={name: [numbers.get(name) for _, numbers in points] for name in names},
    )


def _floor(moment: datetime, resolution_s: int) -> datetime:
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % resolution_s, UTC)


def _write(missing: dict[int, datetime], numbers: Numbers) -> None:
    samples = [
        MetricSample(resolution_s=resolution, at=at, numbers=worst_of([*_finer(resolution, at), numbers]))
        for resolution, at in missing.items()
    ]
    MetricSample.objects.bulk_create(samples, ignore_conflicts=True)


def _finer(resolution_s: int, at: datetime) -> list[Numbers]:
    """The fine samples since the coarse one before `at`, oldest first."""
    if resolution_s == INTERVAL_S:
        return []
    since = at - timedelta(seconds=resolution_s)
    rows = MetricSample.objects.filter(resolution_s=INTERVAL_S, at__gt=since, at__lte=at).order_by("at")
    return list(rows.values_list("numbers", flat=True))


def _thinned(rows: Iterable[tuple[datetime, Numbers]], step_s: int) -> Iterator[tuple[datetime, Numbers]]:
    """The last row of each step."""
    gathered: list[tuple[datetime, Numbers]] = []
    for at, numbers in rows:
        if gathered and _floor(at, step_s) != _floor(gathered[0][0], step_s):
            yield gathered[-1][0], worst_of([sample for _, sample in gathered])
            gathered = []
        gathered.append((at, numbers))
    if gathered:
        yield gathered[-1][0], worst_of([sample for _, sample in gathered])


def _prune(now: datetime, written: Iterable[int]) -> None:
    for resolution in written:
        MetricSample.objects.filter(resolution_s=resolution, at__lt=now - TIERS[resolution]).delete()
