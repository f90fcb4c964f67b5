"""Versions of prompts: to look at, and to point labels at."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminTextInputWidget

from autoforge.admin import ProjectScopedAdmin, actor_of
from autoforge.errors import AppError
from prompts import services
from prompts.diffing import lines_of
from prompts.models import PromptVersion


class ReadOnlyAdmin(ProjectScopedAdmin):
    """Content that only services change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MoveLabelForm(ActionForm):
    label = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "production"})
    )


@admin.register(PromptVersion)
class PromptVersionAdmin(ReadOnlyAdmin):
    """Versions are immutable; labels can be pointed at them."""

    project_path = "prompt__project"
    list_display = ["prompt", "number", "pointing", "message", "created_by", "created_at"]
    list_filter = [("prompt__project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["prompt__project"]
    search_fields = ["prompt__name", "message"]
    ordering = ["prompt__name", "-number"]
    fields = [
        "prompt",
        "number",
        "pointing",
        "text",
        "config",
        "variables",
        "message",
        "created_by",
        "created_at",
    ]
    readonly_fields = ["pointing", "text"]
    action_form = MoveLabelForm
    actions = ["point_label"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptVersion]:
        rows = super().get_queryset(request).select_related("prompt__project").prefetch_related("labels")
        match = request.resolver_match
        is_list = match is not None and str(match.url_name).endswith("_changelist")
        return rows.defer("template", "config", "variables") if is_list else rows

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_point_label_permission(self, request: HttpRequest) -> bool:
        return self.has_role(request, self.edit_role)

    @admin.display(description="labels")
    def pointing(self, version: PromptVersion) -> str:
        return ", ".join(sorted(label.name for label in version.labels.all()))

    @admin.display(description="template")
    def text(self, version: PromptVersion) -> SafeString:
        return format_html('<pre class="verbatim">{}</pre>', "\n".join(lines_of(version.template)))

    @admin.action(description="Point the label at the selected version", permissions=["point_label"])
    def point_label(self, request: HttpRequest, queryset: QuerySet[PromptVersion]) -> None:
        label = request.POST.get("label", "").strip()
        for version in queryset:
            try:
                self._point(request, version, label)
            except AppError as error:
                self.message_user(request, f"{version}: {error.detail}", messages.ERROR)
            else:
                self.message_user(request, f"{label} points at {version}.")

    def _point(self, request: HttpRequest, version: PromptVersion, label: str) -> None:
        """Raises AppError: a viewer of this project may be an editor of another."""
        actor = actor_of(request, version.prompt.project)
        actor.require(self.edit_role)
        services.move_label(version.prompt, label=label, version=version.number, actor=actor)
