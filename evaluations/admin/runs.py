"""Runs: the list, the page of one with its buttons, starting, comparing, exporting."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString

from autoforge.admin import actor_of
from autoforge.errors import AppError, InvalidInput
from autoforge.models import Project
from evaluations import services
from evaluations.admin.comparing import ComparisonPage
from evaluations.admin.forms import StartForm, settings_of
from evaluations.admin.pages import DeskAdmin, add_error
from evaluations.admin.run_page import RunPage
from evaluations.exports import export
from evaluations.models import Run
from evaluations.reports import efficiency_of
from evaluations.statistics import wilson_interval
from evaluations.templatetags import desk

_HEAVY = ("prompts", "endpoints", "judges", "scorers", "about")


@admin.register(Run)
class RunAdmin(DeskAdmin):
    """Runs are started and stopped by services; nobody edits one."""

    list_display = ["title", "badge", "progress", "pass_rate", "cost", "took", "efficiency", "started"]
    list_filter = [
        "state",
        ("dataset", admin.RelatedOnlyFieldListFilter),
        ("project", admin.RelatedOnlyFieldListFilter),
    ]
    list_select_related = ["dataset", "project"]
    search_fields = ["name", "dataset__name", "created_by"]
    ordering = ["-created_at", "id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        rows = super().get_queryset(request).select_related("dataset", "project")
        return rows.defer(*_HEAVY) if self.is_list(request) else rows

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_role(request, self.edit_role)

    @admin.display(description="run", ordering="name")
    def title(self, run: Run) -> SafeString:
        name = run.name or f"{run.dataset.name} · {str(run.pk)[:8]}"
        about = f"{run.dataset.name} · {run.total:,} cells · {run.created_by}"
        return format_html('{}<span class="about">{}</span>', name, about)

    @admin.display(description="state", ordering="state")
    def badge(self, run: Run) -> SafeString:
        return desk.state_badge(run.state)

    @admin.display(description="done", ordering="done")
    def progress(self, run: Run) -> SafeString:
        return format_html(
            '{}<span class="about">{} / {}</span>', desk.progress_bar(run), f"{run.done:,}", f"{run.total:,}"
        )

    @admin.display(description="pass rate")
    def pass_rate(self, run: Run) -> SafeString:
        judged = run.passed + run.failed
        share = run.passed / judged if judged else None
        bar = desk.interval_bar(share, wilson_interval(run.passed, judged))
        return format_html("{}{}", desk.percent(share), bar)

    @admin.display(description="cost", ordering="cost_usd")
    def cost(self, run: Run) -> str:
        return desk.usd(run.cost_usd)

    @admin.display(description="took")
    def took(self, run: Run) -> str:
        return desk.duration(run.wall_s)

    @admin.display(description="efficiency")
    def efficiency(self, run: Run) -> str:
        return desk.percent(efficiency_of(run))

    @admin.display(description="started", ordering="created_at")
    def started(self, run: Run) -> str:
        return f"{run.created_at:%d %b %H:%M}"

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "compare": self.compare_view,
            "export": self.export_view,
            "cancel": self.cancel_view,
            "resume": self.resume_view,
            "retry-errors": self.retry_errors_view,
        }
        return [*self.object_urls(views), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        run = self.get_object(request, object_id)
        can_edit = self.has_role(request, self.edit_role, run)
        title = run.name or f"Run {str(run.pk)[:8]}"
        return self.page(
            request, "run", title=title, original=run, run=run, shown=RunPage(run), can_edit=can_edit
        )

    def compare_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """`?a=&b=`, two columns written `<run>:<column>`."""
        run = self._run(request, object_id)
        shown = ComparisonPage(run, self.get_queryset(request), request.GET.get("a"), request.GET.get("b"))
        return self.page(request, "compare", title="Compare", original=run, run=run, shown=shown)

    def export_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """All results as a file, `?format=jsonl|csv|junit`."""
        run = self._run(request, object_id)
        try:
            return export(run, request.GET.get("format", "jsonl"))  # type: ignore[return-value]  # streams
        except InvalidInput as error:
            raise Http404 from error

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Choose, and start."""
        projects = self.editable_projects(request)
        project, initial = self._template_of(request, projects)
        form = StartForm(project, request.POST or None, initial) if project else None
        if form and project and form.is_valid():
            try:
                run = services.start_run(project, form.new_run(), actor=actor_of(request, project))
            except AppError as error:
                add_error(form, error)
            else:
                return self.to_page(run.pk)
        return self.page(
            request, "new_run", title="Start a run", form=form, project=project, projects=projects
        )

    def _template_of(
        self, request: HttpRequest, projects: QuerySet[Project]
    ) -> tuple[Project | None, dict[str, Any]]:
        """Where to start, and what the form begins with: `?from=<run>`, or `?project=&dataset=`."""
        if earlier := request.GET.get("from"):
            run = self.get_object(request, earlier)
            self.require(request, run)
            return run.project, settings_of(run)
        named = projects.filter(name=request.GET.get("project", "")).first()
        return named or projects.first(), {"dataset": request.GET.get("dataset", "")}

    def cancel_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """Start no cell any more."""
        return self._change(request, object_id, services.cancel_run, "The run is cancelled.")

    def resume_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """Go on, with a higher budget if one is given."""

        def resume(run: Run) -> Run:
            return services.resume_run(run, budget_usd=_amount(request.POST.get("budget_usd", "")))

        return self._change(request, object_id, resume, "The run goes on.")

    def retry_errors_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """Make the cells again that ended in an error."""
        return self._change(request, object_id, services.retry_errors, "The errors are tried again.")

    def _change(
        self, request: HttpRequest, object_id: UUID, change: Callable[[Run], Run], said: str
    ) -> HttpResponse:
        run = self._run(request, object_id)
        self.require(request, run)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            change(run)
        except AppError as error:
            self.refuse(request, error)
        else:
            self.message_user(request, said)
        return self.to_page(run.pk)

    def _run(self, request: HttpRequest, object_id: UUID) -> Run:
        run: Run = self.get_object(request, str(object_id))
        return run


def _amount(text: str) -> Decimal | None:
    """Raises InvalidInput."""
    try:
        return Decimal(text) if text.strip() else None
    except InvalidOperation:
        raise InvalidInput(f"The budget must be a number of dollars, not {text!r}.") from None
