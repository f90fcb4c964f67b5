"""What the pages of this desk share: they look, and their buttons call services."""

from functools import cached_property
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import CharField, F, QuerySet, TextField
from django.db.models.functions import Cast, Left
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from autoforge.admin import ProjectScopedAdmin, project_roles
from autoforge.errors import AppError
from autoforge.models import Project

PREVIEW_CHARS = 160
_MAX_COUNTED = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in the stubs only
    """Counts and shows at most the first 10,000 rows: nobody turns 200 pages, and counting all takes long."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[:_MAX_COUNTED].count()
        return len(rows)


class DeskAdmin(ProjectScopedAdmin):
    """Rows that only services write. Pages of their own stand for Django's forms."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def is_list(self, request: HttpRequest) -> bool:
        """Whether the request is for the list of this model."""
        match = request.resolver_match
        return match is not None and str(match.url_name).endswith("_changelist")

    def page(
        self, request: HttpRequest, name: str, *, title: str, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """The template `evaluations/desk/<name>.html` in the frame of the desk."""
        request.current_app = self.admin_site.name
        frame = self.admin_site.each_context(request) | {"opts": self.opts, "title": title}
        return TemplateResponse(request, f"evaluations/desk/{name}.html", frame | context, status=status)

    def require(self, request: HttpRequest, obj: Any) -> None:
        """Raises PermissionDenied for who may only look at `obj`."""
        if not self.has_role(request, self.edit_role, obj):
            raise PermissionDenied

    def to_page(self, pk: Any) -> HttpResponse:
        """A redirect to the page of an object of this model."""
        return HttpResponseRedirect(page_url(self.opts.model_name, pk))

    def refuse(self, request: HttpRequest, error: AppError) -> None:
        """Say what was wrong on the next page."""
        self.message_user(request, error.detail, messages.ERROR)

    def editable_projects(self, request: HttpRequest) -> QuerySet[Project]:
        """The projects in which the user may make something."""
        projects = Project.objects.order_by("name")
        if request.user.is_superuser:
            return projects
        roles = project_roles(request)
        return projects.filter(pk__in=[pk for pk, role in roles.items() if role.includes(self.edit_role)])


def page_url(model: str | None, pk: Any) -> str:
    """Where the page of an object of this app is."""
    return reverse(f"admin:evaluations_{model}_change", args=[pk])


def preview(field: str, *, is_json: bool = False) -> Any:
    """The first characters of a long text, cut by the database."""
    text: Any = Cast(F(field), TextField()) if is_json else F(field)
    return Left(text, PREVIEW_CHARS, output_field=CharField())


def add_error(form: forms.Form, error: AppError) -> None:
    """Put a refusal beside the field it speaks of: sentences begin with the field's name."""
    field = error.detail.partition(" ")[0].partition("[")[0].strip(":,.")
    form.add_error(field if field in form.fields else None, error.detail)
