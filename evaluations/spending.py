"""What costs money: models and runs of a period, the dearest first."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Avg, Count, F, Max, Q, QuerySet, Sum
from django.utils import timezone

from evaluations.models import Result, ResultState, Run

PERIOD = timedelta(days=7)
# Looked into for models, the dearest first; the others cost less than any of these.
_MAX_RUNS, _MAX_CELLS = 200, 100_000


@dataclass
class ModelSpending:
    """One model endpoint of a project over the runs looked into; `slowest_ms` is its slowest answer."""

    project: str
    name: str
    provider: str
    runs: int = 0
    cells: int = 0
    errors: int = 0
    cost_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    answer_ms: float = 0.0
    answers: int = 0
    slowest_ms: float | None = None

    @property
    def mean_ms(self) -> float | None:
        return self.answer_ms / self.answers if self.answers else None

    def add(self, sums: dict[str, Any]) -> None:
        """One column of one run."""
        self.cells += sums["cells"]
        self.errors += sums["n_errors"]
        self.cost_usd += sums["cost"] or 0
        self.saved_usd += sums["saved"] or 0
        self.answers += sums["n_answers"]
        self.answer_ms += (sums["mean_ms"] or 0) * sums["n_answers"]
        self.slowest_ms = max(self.slowest_ms or 0, sums["slowest"]) if sums["slowest"] else self.slowest_ms


def recent(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Those of `runs` that were started within PERIOD."""
    return runs.filter(created_at__gte=timezone.now() - PERIOD)


def dearest_runs(runs: QuerySet[Run], limit: int) -> QuerySet[Run]:
    """Runs of the period that cost something, the dearest first, with `cost_per_cell`."""
    slim = recent(runs).filter(cost_usd__gt=0, done__gt=0).defer("prompts", "endpoints", "judges", "scorers")
    priced = slim.annotate(cost_per_cell=F("cost_usd") / F("done"))
    return priced.select_related("project", "dataset").order_by("-cost_usd", "-created_at")[:limit]


def spending_by_model(runs: QuerySet[Run], limit: int) -> list[ModelSpending]:
    """Models by what they cost in the dearest runs of the period. Two queries."""
    looked_into = _bounded(recent(runs))
    found: dict[tuple[str, str], ModelSpending] = {}
    users: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for sums in _sums(list(looked_into)):
        run = looked_into[sums["run_id"]]
        _, endpoint = run.column_parts(sums["column"])
        key = (run.project.name, endpoint["name"])
        found.setdefault(key, ModelSpending(*key, provider=endpoint.get("provider", "elsewhere"))).add(sums)
        users[key].add(run.pk)
    for key, spent in found.items():
        spent.runs = len(users[key])
    by_cost = sorted(found.values(), key=lambda spent: (spent.cost_usd, spent.answer_ms), reverse=True)
    return by_cost[:limit]


def _bounded(runs: QuerySet[Run]) -> dict[Any, Run]:
    dearest = runs.filter(done__gt=0).order_by("-cost_usd", "-created_at").select_related("project")
    chosen: dict[Any, Run] = {}
    cells = 0
    for run in dearest.only("done", "prompts", "endpoints", "project__name")[:_MAX_RUNS]:
        cells += run.done
        if cells > _MAX_CELLS and chosen:
            break
        chosen[run.pk] = run
    return chosen


def _sums(run_ids: list[Any]) -> Any:
    """One row for each column of each run."""
    fresh = Q(cached=False, latency_ms__isnull=False)
    return (
        Result.objects.filter(run__in=run_ids)
        .order_by()
        .values("run_id", "column")
        .annotate(
            cells=Count("pk"),
            n_errors=Count("pk", filter=Q(state=ResultState.ERROR)),
            n_answers=Count("pk", filter=fresh),
            mean_ms=Avg("latency_ms", filter=fresh),
            slowest=Max("latency_ms", filter=fresh),
            cost=Sum("cost_usd"),
            saved=Sum("saved_usd"),
        )
    )
