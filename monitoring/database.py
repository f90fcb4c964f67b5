"""The runs of the whole installation, and the server that holds them: asked with a time limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Count, F, FloatField, Max, Min, Q, Sum
from django.db.models.functions import Cast
from django.utils import timezone
from prometheus_client import Gauge

from evaluations.models import Run, RunState, RunWorker

_TIMEOUT_MS = 2_000


def _gauge(name: str, documentation: str, *labels: str) -> Gauge:
    return Gauge(f"autoforge_{name}", documentation, labels, multiprocess_mode="livemostrecent")


up = _gauge("db_up", "1: the database answers.")
connections_open = _gauge("db_server_connections", "Connections to the database server, of anybody.")
connections_limit = _gauge("db_server_max_connections", "Connections that the database server allows.")
size_bytes = _gauge("db_size_bytes", "Size of the database.")
runs = _gauge("runs", "Runs by state.", "state")
cells_open = _gauge("run_cells_open", "Cells of queued and running runs that have no result yet.")
longest_wait = _gauge("run_queue_wait_seconds", "How long the oldest queued run has been waiting.")
workers = _gauge("run_workers", "Workers that drain runs now, each counted once a run.")
budget = _gauge("run_budget_usd", "Budgets of the queued and running runs that have one.")
spent = _gauge("run_budget_spent_usd", "What those runs have spent.")
used_ratio = _gauge("run_budget_used_ratio", "The largest part of a budget that is spent.")
overruns = _gauge(
    "run_budget_overruns_expected",
    "Those runs whose cells so far cost more than their budget gives to each cell.",
)


def look() -> None:
    """Bring the gauges up to date, within a few seconds."""
    try:
        if connection.vendor == "postgresql":
            _look_at_server()
        with _bounded():
            _look_at_runs()
            _look_at_budgets()
        up.set(1)
    except DatabaseError:
        up.set(0)


@contextmanager
def _bounded() -> Iterator[None]:
    """A time limit for each statement. SQLite gets no transaction: it would lock out writers."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}")
        yield


def _look_at_runs() -> None:
    counts = dict(Run.objects.order_by().values_list("state").annotate(Count("pk")))
    for state in RunState:
        runs.labels(state.value).set(counts.get(state.value, 0))
    live = Run.objects.live().aggregate(
        cells=Sum(F("total") - F("done")),
        oldest=Min("created_at", filter=Q(state=RunState.QUEUED)),
    )
    cells_open.set(live["cells"] or 0)
    waits_since = live["oldest"]
    longest_wait.set((timezone.now() - waits_since).total_seconds() if waits_since else 0)
    workers.set(RunWorker.objects.alive().count())


def _look_at_budgets() -> None:
    sums = (
        Run.objects.live()
        .filter(budget_usd__gt=0, total__gt=0)
        .annotate(used=_ratio("cost_usd", "budget_usd"), progress=_ratio("done", "total"))
        .aggregate(
            budget=Sum("budget_usd"),
            spent=Sum("cost_usd"),
            most=Max("used"),
            overruns=Count("pk", filter=Q(done__gt=0, used__gt=F("progress"))),
        )
    )
    budget.set(float(sums["budget"] or 0))
    spent.set(float(sums["spent"] or 0))
    used_ratio.set(sums["most"] or 0)
    overruns.set(sums["overruns"])


def _ratio(part: str, whole: str) -> Any:
    return Cast(part, FloatField()) / Cast(whole, FloatField())


def _look_at_server() -> None:
    with _bounded(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
            "current_setting('max_connections')::int, pg_database_size(current_database())"
        )
        row: Any = cursor.fetchone()
    for gauge, value in zip((connections_open, connections_limit, size_bytes), row, strict=True):
        gauge.set(value)
