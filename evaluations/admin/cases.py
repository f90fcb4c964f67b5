"""Cases: a list that reads only the beginning of each, and a page of one."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from evaluations.admin.pages import DeskAdmin, preview
from evaluations.models import Case


def brief(cases: QuerySet[Case]) -> QuerySet[Case]:
    """With `vars_begin` and `expected_begin` instead of what may be megabytes."""
    return cases.defer("vars", "expected", "metadata", "scorers").annotate(
        vars_begin=preview("vars", is_json=True), expected_begin=preview("expected", is_json=True)
    )


@admin.register(Case)
class CaseAdmin(DeskAdmin):
    """Cases are immutable: a run freezes them by their ids."""

    project_path = "dataset__project"
    list_display = ["number", "dataset", "variables", "expected_text"]
    list_filter = [("dataset", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["dataset__project"]
    ordering = ["pk"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Case]:
        rows = super().get_queryset(request).select_related("dataset__project")
        return brief(rows) if self.is_list(request) else rows

    def has_module_permission(self, request: HttpRequest) -> bool:
        # Cases are reached through their data set.
        return False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        case = self.get_object(request, object_id)
        return self.page(request, "case", title=f"Case {case.pk}", case=case, original=case)

    @admin.display(description="case", ordering="pk")
    def number(self, case: Case) -> int:
        return case.pk

    @admin.display(description="variables")
    def variables(self, case: Any) -> str:
        return str(case.vars_begin)

    @admin.display(description="expected")
    def expected_text(self, case: Any) -> str | None:
        return case.expected_begin
