"""Results: a list filtered by run, column, state and score, and the page of one cell."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList as DjangoChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesRadioFilter, DropdownFilter, RangeNumericFilter
from unfold.views import ChangeList

from evaluations.admin.pages import DeskAdmin
from evaluations.admin.result_page import ResultPage
from evaluations.admin.run_page import brief, named
from evaluations.models import Result, Run
from evaluations.schemas import columns_of, versioned
from evaluations.templatetags import desk

_LISTED_RUNS = 50


def _chosen_run(request: HttpRequest) -> UUID | None:
    """The run that the list is narrowed to."""
    try:
        return UUID(request.GET.get("run", ""))
    except ValueError:
        return None


class RunFilter(DropdownFilter):
    """The newest runs of the user's projects, and the chosen one."""

    title = "run"
    parameter_name = "run"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        runs = model_admin.visible_runs(request).select_related("dataset")
        slim = runs.only("name", "created_at", "dataset__name").order_by("-created_at")
        found = list(slim[:_LISTED_RUNS])
        chosen = _chosen_run(request)
        if chosen and chosen not in {run.pk for run in found}:
            found += slim.filter(pk=chosen)
        return [
            (str(run.pk), f"{run.name or run.dataset.name}, {run.created_at:%d %b %H:%M}") for run in found
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Result]) -> QuerySet[Result]:
        if not self.value():
            return queryset
        return queryset.filter(run=_chosen_run(request))


class ColumnFilter(DropdownFilter):
    """The columns of the chosen run."""

    title = "column"
    parameter_name = "column"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = _chosen_run(request)
        run = chosen and model_admin.visible_runs(request).filter(pk=chosen).first()
        if not run:
            return []
        return [
            (str(index), f"{versioned(name)} · {name.model}") for index, name in enumerate(columns_of(run))
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Result]) -> QuerySet[Result]:
        value = str(self.value() or "")
        return queryset.filter(column=int(value)) if value.isdecimal() else queryset


class NamedChangeList(ChangeList):
    """Results with the names of their columns: one query a page, whatever the number of runs."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        results = list(self.result_list)
        ids = {result.run_id for result in results}
        runs = {run.pk: run for run in Run.objects.filter(pk__in=ids).only("name", "prompts", "endpoints")}
        for result in results:
            list(named([result], runs[result.run_id]))
        self.result_list = results


@admin.register(Result)
class ResultAdmin(DeskAdmin):
    """Results are written by runs alone."""

    project_path = "run__project"
    list_display = ["cell", "badge", "points", "column_label", "output_text", "latency", "tokens", "cost"]
    list_filter = [RunFilter, ColumnFilter, ("state", ChoicesRadioFilter), ("score", RangeNumericFilter)]
    list_filter_submit = True
    ordering = ["-pk"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Result]:
        rows = super().get_queryset(request)
        if self.is_list(request):
            return brief(rows)
        return rows.select_related("run__project", "run__dataset", "case")

    def visible_runs(self, request: HttpRequest) -> QuerySet[Run]:
        """The runs of the user's projects."""
        runs: Any = self.admin_site._registry[Run]
        found: QuerySet[Run] = runs.get_queryset(request)
        return found.select_related(None).defer(None)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DjangoChangeList]:
        return NamedChangeList

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        result = self.get_object(request, object_id)
        shown = ResultPage(result)
        return self.page(
            request, "result", title=shown.title, original=result.run, result=result, shown=shown
        )

    @admin.display(description="case", ordering="case_id")
    def cell(self, result: Result) -> str:
        return f"{result.case_id}" + (f" · {result.repeat + 1}" if result.repeat else "")

    @admin.display(description="state", ordering="state")
    def badge(self, result: Result) -> SafeString:
        return desk.state_badge(result.state)

    @admin.display(description="score", ordering="score")
    def points(self, result: Result) -> str:
        return desk.decimals(result.score, 2)

    @admin.display(description="prompt · model", ordering="column")
    def column_label(self, result: Any) -> SafeString:
        name = result.column_name
        text = '<span class="brief">{}</span><span class="about">{}</span>'
        return format_html(text, versioned(name), name.model)

    @admin.display(description="output")
    def output_text(self, result: Any) -> SafeString:
        text = result.error_begin or result.output_begin
        return format_html('<span class="excerpt">{}</span>', text)

    @admin.display(description="latency", ordering="latency_ms")
    def latency(self, result: Result) -> str:
        return "cached" if result.cached else desk.milliseconds(result.latency_ms)

    @admin.display(description="tokens", ordering="output_tokens")
    def tokens(self, result: Result) -> SafeString:
        counts = (result.input_tokens, result.output_tokens)
        shown = (desk.UNKNOWN if count is None else f"{count:,}" for count in counts)
        return format_html('<span class="brief">{} → {}</span>', *shown)

    @admin.display(description="cost", ordering="cost_usd")
    def cost(self, result: Result) -> str:
        return desk.usd(result.cost_usd)
