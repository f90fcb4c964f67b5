"""The operator's landing page: what is about to break, what is slow, what costs money, which run regressed.

Numbers of the installation are for all staff; runs and models only those of the user's projects.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone

from autoforge.admin import project_roles
from autoforge.models import ApiKey, KeySpending, Role
from evaluations.models import Run, RunQuerySet, RunWorker
from evaluations.regressions import ColumnChange, newest_changes
from evaluations.spending import ModelSpending, dearest_runs, spending_by_model
from monitoring.bounds import Bound, Level, filled, installation_bounds, moment_of
from monitoring.summary import installation_summary
from monitoring.timings import Timings, timings

_ROWS = 8
_CLIENT = "realtime/client.js"
# The charts' names in the page's script, with their titles.
_CHARTS = (
    ("latency", "Latency of requests"),
    ("distribution", "How long requests took"),
    ("requests", "Requests"),
    ("errors", "Errors and timeouts"),
    ("calls", "Model calls"),
    ("cost", "Cost of model calls"),
    ("hits", "Answered from caches"),
    ("cells", "Evaluated cells"),
    ("efficiency", "Parallel efficiency"),
    ("pool", "Database connections"),
    ("redis", "Redis"),
    ("websockets", "WebSockets"),
    ("messages", "Live messages"),
    ("cpu", "CPU"),
    ("memory", "Memory"),
)
_TILES = (
    ("requests", "Requests"),
    ("p95", "Latency P95"),
    ("errors", "Server errors"),
    ("calls", "Model calls"),
    ("cost", "Spending"),
    ("hits", "Cached answers"),
    ("efficiency", "Parallel efficiency"),
    ("memory", "Memory"),
)
# A run that nobody has taken up for this long waits for a worker that does not come.
_UNATTENDED = timedelta(seconds=30)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the landing page adds to the frame of every page."""
    return context | {"title": "Dashboard", "shown": Dashboard(visible_runs(request), visible_keys(request))}


def visible_runs(request: HttpRequest) -> RunQuerySet:
    """Runs of the signed-in user's projects; a superuser's are all."""
    if request.user.is_superuser:
        return Run.objects.all()
    return Run.objects.filter(project__in=list(project_roles(request)))


def visible_keys(request: HttpRequest) -> QuerySet[ApiKey]:
    """Keys of the projects that the signed-in user owns; a superuser's are all."""
    if request.user.is_superuser:
        return ApiKey.objects.all()
    owned = [project for project, role in project_roles(request).items() if role.includes(Role.OWNER)]
    return ApiKey.objects.filter(project__in=owned)


class Dashboard:
    """Reads lazily: what a template leaves out costs nothing."""

    tiles = _TILES
    ranges = (("live", "Live"), ("1h", "1 h"), ("24h", "24 h"), ("7d", "7 d"))

    def __init__(self, runs: RunQuerySet, keys: QuerySet[ApiKey]) -> None:
        self._runs = runs
        self._keys = keys

    @property
    def charts(self) -> list[tuple[str, str]]:
        """Those that can have numbers in this installation."""
        absent = {"redis": not settings.REDIS_URL, "pool": not settings.DATABASE_URL}
        return [(name, title) for name, title in _CHARTS if not absent.get(name)]

    @property
    def client_url(self) -> str:
        """The script that speaks to our WebSockets; empty when the installation has none."""
        return static(_CLIENT) if finders.find(_CLIENT) else ""

    @property
    def caches(self) -> str:
        """The names of the caches beside that of the answers."""
        return ",".join(name for name in settings.CACHE_TTL_S if name != "llm_responses")

    @cached_property
    def bounds(self) -> list[Bound]:
        """The worst first."""
        found = [*installation_bounds(moment_of(installation_summary())), *self._projects_bounds()]
        levels = list(Level)
        return sorted(found, key=lambda bound: (levels.index(bound.level), -(bound.share or 0)))

    @property
    def troubles(self) -> list[Bound]:
        return [bound for bound in self.bounds if bound.level is not Level.FINE]

    @cached_property
    def timings(self) -> Timings:
        return timings(_ROWS)

    @cached_property
    def models(self) -> list[ModelSpending]:
        return spending_by_model(self._runs, _ROWS)

    @property
    def dearest_runs(self) -> QuerySet[Run]:
        return dearest_runs(self._runs, _ROWS)

    @cached_property
    def changes(self) -> list[ColumnChange]:
        return newest_changes(self._runs, _ROWS)

    @cached_property
    def live_runs(self) -> list[Run]:
        """The newest runs at work, each with the number of workers that it has."""
        slim = self._runs.live().select_related("project", "dataset")
        slim = slim.defer("prompts", "endpoints", "judges", "scorers")
        return list(slim.order_by("-created_at")[:_ROWS])

    def _projects_bounds(self) -> Iterator[Bound]:
        yield from self._budgets()
        yield from self._key_budgets()
        yield from self._waiting()

    def _key_budgets(self) -> Iterator[Bound]:
        """Of this month, those nearest to their end."""
        month = timezone.now().date().replace(day=1)
        rows = KeySpending.objects.filter(key__in=self._keys.filter(budget_usd__gt=0), month=month)
        used = rows.annotate(used=F("spent_usd") / F("key__budget_usd")).select_related("key")
        for row in used.order_by("-used")[:_ROWS]:
            spent, budget = float(row.spent_usd), float(row.key.budget_usd or 0)
            url = reverse("admin:autoforge_apikey_change", args=[row.key_id])
            text = f"${spent:,.4f} of ${budget:,.2f} this month"
            yield filled(f"Budget of the key {row.key.name}", spent, budget, text, url)

    def _budgets(self) -> Iterator[Bound]:
        limited = self._runs.live().filter(budget_usd__gt=0).select_related("dataset")
        slim = limited.annotate(used=F("cost_usd") / F("budget_usd")).defer("prompts", "endpoints", "scorers")
        for run in slim.order_by("-used")[:_ROWS]:
            used, budget = float(run.cost_usd), float(run.budget_usd or 0)
            yield filled(
                f"Budget of {_name(run)}", used, budget, f"${used:,.4f} of ${budget:,.2f}", _url(run)
            )

    def _waiting(self) -> Iterator[Bound]:
        """Runs that no living worker works on."""
        attended = RunWorker.objects.alive().values("run")
        old = self._runs.live().filter(enqueued_at__lt=timezone.now() - _UNATTENDED)
        for run in old.exclude(pk__in=attended).select_related("dataset")[:_ROWS]:
            text = "No worker has taken it up: is one running, and has it a free place?"
            yield Bound(f"Run {_name(run)}", text, Level.NEAR, url=_url(run))


def _name(run: Run) -> str:
    return run.name or f"{run.dataset.name} · {str(run.pk)[:8]}"


def _url(run: Run) -> str:
    return reverse("admin:evaluations_run_change", args=[run.pk])
