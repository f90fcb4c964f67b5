"""Data sets: how many cases and runs they have, their cases, and the import of files."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Max, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern

from autoforge.errors import AppError
from evaluations import services
from evaluations.admin.cases import brief
from evaluations.admin.forms import ImportForm, NewDatasetForm
from evaluations.admin.pages import DeskAdmin, add_error
from evaluations.importing import MAX_REPORTED_LINES, limited_chunks
from evaluations.models import Dataset, Run

_SHOWN_CASES = 10
_SHOWN_RUNS = 5
_HEAVY_RUN_FIELDS = ("prompts", "endpoints", "judges", "scorers", "about")


@admin.register(Dataset)
class DatasetAdmin(DeskAdmin):
    """Data sets only grow: cases are added by files here, or over the API."""

    list_display = ["name", "project", "number_of_cases", "number_of_runs", "last_run_at", "created_at"]
    list_filter = [("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "description"]
    ordering = ["name"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        runs = Run.objects.filter(dataset=OuterRef("pk")).order_by().values("dataset")
        return (
            super()
            .get_queryset(request)
            .select_related("project")
            .annotate(
                n_runs=Subquery(runs.annotate(n=Count("pk")).values("n")),
                last_run=Subquery(runs.annotate(last=Max("created_at")).values("last")),
            )
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_role(request, self.edit_role)

    @admin.display(description="cases", ordering="case_count")
    def number_of_cases(self, dataset: Dataset) -> str:
        return f"{dataset.case_count:,}"

    @admin.display(description="runs", ordering="n_runs")
    def number_of_runs(self, dataset: Any) -> str:
        return f"{dataset.n_runs or 0:,}"

    @admin.display(description="last run", ordering="last_run")
    def last_run_at(self, dataset: Any) -> Any:
        return dataset.last_run

    def get_urls(self) -> list[URLPattern]:
        return [*self.object_urls({"import": self.import_view}), *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        projects = self.editable_projects(request)
        form = NewDatasetForm(projects, request.POST or None)
        if form.is_valid():
            try:
                return self.to_page(services.create_dataset(**form.cleaned_data).pk)
            except AppError as error:
                add_error(form, error)
        return self.page(request, "new_dataset", title="New data set", form=form)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        return self._dataset_page(request, self.get_object(request, object_id), ImportForm())

    def import_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The cases of an uploaded file, all or none: then the page again says what is wrong in each line."""
        dataset = self.get_object(request, str(object_id))
        self.require(request, dataset)
        if request.method != "POST":
            return self.to_page(dataset.pk)
        form = ImportForm(request.POST, request.FILES)
        if not form.is_valid():
            return self._dataset_page(request, dataset, form)
        chunks = limited_chunks(form.cleaned_data["file"].read, settings.MAX_IMPORT_BYTES)
        try:
            count = services.import_cases(dataset, chunks, format=form.format)
        except AppError as error:
            return self._dataset_page(request, dataset, form, refusal=error)
        self.message_user(
            request, "One case was imported." if count == 1 else f"{count:,} cases were imported."
        )
        return self.to_page(dataset.pk)

    def _dataset_page(
        self, request: HttpRequest, dataset: Dataset, form: ImportForm, refusal: AppError | None = None
    ) -> HttpResponse:
        runs = dataset.runs.select_related("dataset").defer(*_HEAVY_RUN_FIELDS).order_by("-created_at")
        bad_lines = refusal.extra.get("errors", []) if refusal else []
        return self.page(
            request,
            "dataset",
            title=dataset.name,
            status=refusal.status if refusal else 200,
            original=dataset,
            dataset=dataset,
            cases=brief(dataset.cases.current().order_by("pk"))[:_SHOWN_CASES],
            runs=runs[:_SHOWN_RUNS],
            form=form,
            refusal=refusal,
            bad_lines=bad_lines,
            has_more_bad_lines=len(bad_lines) == MAX_REPORTED_LINES,
            can_edit=self.has_role(request, self.edit_role, dataset),
        )
