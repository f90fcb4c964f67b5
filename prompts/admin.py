"""The operator's desk for prompts and models."""

from typing import Any

import msgspec
from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminTextInputWidget

from autoforge.admin import ProjectScopedAdmin, ReadOnlyInline, actor_of
from autoforge.errors import AppError
from prompts import services
from prompts.endpoint_form import EndpointForm
from prompts.models import Label, LabelMove, ModelEndpoint, Prompt, PromptVersion


def _text_of(template: Any) -> str:
    """A template as a person reads it."""
    return (
        template if isinstance(template, str) else msgspec.json.format(msgspec.json.encode(template)).decode()
    )


class ReadOnlyAdmin(ProjectScopedAdmin):
    """Content that only services change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class VersionInline(ReadOnlyInline):
    model = PromptVersion
    fields = ["number", "message", "created_by", "created_at"]
    ordering = ["-number"]
    per_page = 20

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptVersion]:
        return super().get_queryset(request).select_related("prompt").defer("template", "config", "variables")


class LabelInline(ReadOnlyInline):
    model = Label
    fields = ["name", "number"]
    readonly_fields = ["number"]
    show_change_link = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Label]:
        return super().get_queryset(request).select_related("version").defer("version__template")

    @admin.display(description="version")
    def number(self, label: Label) -> int:
        return label.version.number


class LabelMoveInline(ReadOnlyInline):
    model = LabelMove
    fields = ["label", "from_version", "to_version", "moved_by", "moved_at"]
    ordering = ["-pk"]
    per_page = 20
    show_change_link = False


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    """Prompts to look at and to delete, one at a time."""

    list_display = ["name", "project", "type", "tags", "updated_at"]
    list_filter = ["type", ("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name"]
    inlines = [LabelInline, VersionInline, LabelMoveInline]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {name: it for name, it in super().get_actions(request).items() if name != "delete_selected"}

    def delete_model(self, request: HttpRequest, obj: Prompt) -> None:
        services.delete_prompt(obj, actor=actor_of(request, obj.project))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except AppError as error:
            self.message_user(request, error.detail, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:prompts_prompt_change", args=[object_id]))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], Any]:
        # Versions and labels go with their prompt: nobody deletes them alone.
        shown, counts, _, protected = super().get_deleted_objects(objs, request)
        return shown, counts, set(), protected


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
    def text(self, version: PromptVersion) -> str:
        return _text_of(version.template)

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


@admin.register(ModelEndpoint)
class ModelEndpointAdmin(ProjectScopedAdmin):
    """Models; the stored secret can be replaced or forgotten here, never seen."""

    form = EndpointForm
    list_display = ["name", "project", "provider", "model", "base_url", "updated_at"]
    list_filter = ["provider", ("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "model"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["project", "name"] if obj else []

    def save_model(self, request: HttpRequest, obj: ModelEndpoint, form: Any, change: bool) -> None:
        if change:
            services.change_endpoint(obj, **form.changes())
        else:
            obj.pk = services.create_endpoint(obj.project, name=obj.name, **form.changes()).pk

    def delete_model(self, request: HttpRequest, obj: ModelEndpoint) -> None:
        services.delete_endpoint(obj)
