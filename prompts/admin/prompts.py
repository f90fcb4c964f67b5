"""Prompts: the list, and the page of one with its labels, versions and their differences."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Max, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse

from autoforge.admin import actor_of
from autoforge.errors import AppError, InvalidInput
from prompts import services
from prompts.admin.prompt_page import PromptPage
from prompts.admin.versions import ReadOnlyAdmin
from prompts.models import Label, Prompt

_SHOWN_TAGS = 5


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    """Prompts to look at, to label, and to delete one at a time; versions come over the API."""

    list_display = ["name", "project", "type", "newest", "pointing", "tag_names", "updated_at"]
    list_filter = ["type", ("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prompt]:
        labels = Label.objects.select_related("version").only("name", "prompt", "version__number")
        rows = super().get_queryset(request).select_related("project")
        numbered = rows.annotate(newest_number=Max("versions__number"))
        return numbered.prefetch_related(Prefetch("labels", labels.order_by("name")))

    @admin.display(description="newest", ordering="newest_number")
    def newest(self, prompt: Any) -> str:
        return f"v{prompt.newest_number}"

    @admin.display(description="labels")
    def pointing(self, prompt: Prompt) -> str:
        return ", ".join(f"{label.name} v{label.version.number}" for label in prompt.labels.all()) or "–"

    @admin.display(description="tags")
    def tag_names(self, prompt: Prompt) -> str:
        return ", ".join(prompt.tags[:_SHOWN_TAGS]) or "–"

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {name: it for name, it in super().get_actions(request).items() if name != "delete_selected"}

    def get_urls(self) -> list[URLPattern]:
        views: dict[str, Callable[..., HttpResponse]] = {
            "move-label": self.move_label_view,
            "remove-label": self.remove_label_view,
        }
        return [*self.object_urls(views), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """`?from=&to=`, two versions to hold against each other."""
        prompt = self.get_object(request, object_id)
        if request.method == "POST":
            raise PermissionDenied
        request.current_app = self.admin_site.name
        frame = self.admin_site.each_context(request) | {"opts": self.opts, "title": prompt.name}
        shown = PromptPage(prompt, _number(request, "from"), _number(request, "to"))
        own = {"original": prompt, "prompt": prompt, "shown": shown}
        can_edit = self.has_role(request, self.edit_role, prompt)
        return TemplateResponse(request, "prompts/desk/prompt.html", frame | own | {"can_edit": can_edit})

    def move_label_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Point `label` at `version`."""

        def move(prompt: Prompt, label: str) -> str:
            version = _required_number(request.POST.get("version", ""))
            services.move_label(prompt, label=label, version=version, actor=actor_of(request, prompt.project))
            return f"{label} points at version {version}."

        return self._change_label(request, object_id, move)

    def remove_label_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Take `label` away."""

        def remove(prompt: Prompt, label: str) -> str:
            services.remove_label(prompt, label=label, actor=actor_of(request, prompt.project))
            return f"The label {label} was taken away."

        return self._change_label(request, object_id, remove)

    def _change_label(
        self, request: HttpRequest, object_id: int, change: Callable[[Prompt, str], str]
    ) -> HttpResponse:
        prompt = self.get_object(request, str(object_id))
        if not self.has_role(request, self.edit_role, prompt):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            self.message_user(request, change(prompt, request.POST.get("label", "").strip()))
        except AppError as error:
            self.message_user(request, error.detail, messages.ERROR)
        return HttpResponseRedirect(reverse("admin:prompts_prompt_change", args=[object_id]))

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


def _number(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _required_number(text: str) -> int:
    """Raises InvalidInput."""
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"version must be a number, not {text!r}.") from None
