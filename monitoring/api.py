"""`metrics/summary`: what the caller's project has done and what it cost; `metrics/history`, for staff."""

from decimal import Decimal
from typing import Any, Literal

import msgspec
from django.db.models import Count, Sum
from dmr import Query

from autoforge.api import ProjectController
from autoforge.errors import Forbidden
from autoforge.models import Project
from evaluations.models import Run
from monitoring.history import History, history


class ProjectSummary(msgspec.Struct, kw_only=True):
    """Over all runs of the project; money in US dollars, `cache_hit_rate` of all recorded cells."""

    runs: dict[str, int]
    cells: int
    passed: int
    failed: int
    errors: int
    cache_hits: int
    cache_hit_rate: float | None
    cost_usd: float
    saved_usd: float


class SummaryController(ProjectController):
    """The project in numbers."""

    def get(self) -> ProjectSummary:
        return summary_of(self.project)


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    """`?range=`"""

    range: Literal["1h", "24h", "7d"] = "1h"


class HistoryController(ProjectController):
    """What the installation's numbers were."""

    def get(self, parsed_query: Query[HistoryQuery]) -> History:
        """Columns of numbers, oldest first; for signed-in staff: keys belong to projects, this to none."""
        if self.actor.user_id is None or not self.request.user.is_staff:
            raise Forbidden("The history of the installation is for signed-in members of the staff.")
        return history(parsed_query.range)


def summary_of(project: Project) -> ProjectSummary:
    """Aggregates of the project's runs, by one statement."""
    fields = ("done", "passed", "failed", "errors", "cache_hits", "cost_usd", "saved_usd")
    rows: list[Any] = list(
        Run.objects.filter(project=project)
        .order_by()
        .values("state")
        .annotate(runs=Count("pk"), **{f"sum_{field}": Sum(field) for field in fields})
    )
    sums = {field: sum((row[f"sum_{field}"] for row in rows), Decimal(0)) for field in fields}
    return ProjectSummary(
        runs={row["state"]: row["runs"] for row in rows},
        cells=int(sums["done"]),
        passed=int(sums["passed"]),
        failed=int(sums["failed"]),
        errors=int(sums["errors"]),
        cache_hits=int(sums["cache_hits"]),
        cache_hit_rate=float(sums["cache_hits"] / sums["done"]) if sums["done"] else None,
        cost_usd=float(sums["cost_usd"]),
        saved_usd=float(sums["saved_usd"]),
    )
