"""Models: the form of an endpoint, and a button that asks whether it answers."""

from typing import Any

from django.contrib import admin
from django.forms import Script
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from autoforge.admin import ProjectScopedAdmin
from prompts import services
from prompts.endpoint_form import EndpointForm
from prompts.models import ModelEndpoint


@admin.register(ModelEndpoint)
class ModelEndpointAdmin(ProjectScopedAdmin):
    """Models; the stored secret can be replaced or forgotten here, never seen."""

    form = EndpointForm
    list_display = ["name", "project", "provider", "model", "base_url", "updated_at", "answers"]
    list_filter = ["provider", ("project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "model"]
    change_form_outer_before_template = "prompts/desk/check.html"

    class Media:
        js = [Script("prompts/check.js", type="module")]

    @admin.display(description="does it answer?")
    def answers(self, endpoint: ModelEndpoint) -> SafeString:
        """The button is shown where its script runs: the answer is waited for by the API's own view."""
        return format_html(
            '<span class="check" data-check="{}" data-project="{}">'
            '<button type="button" class="button" hidden>Check<span class="sr-only"> {}</span></button>'
            ' <span role="status"></span></span>',
            reverse("model-check", args=[endpoint.name]),
            endpoint.project.name,
            endpoint.name,
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["project", "name"] if obj else []

    def save_model(self, request: HttpRequest, obj: ModelEndpoint, form: Any, change: bool) -> None:
        if change:
            services.change_endpoint(obj, **form.changes())
        else:
            obj.pk = services.create_endpoint(obj.project, name=obj.name, **form.changes()).pk

    def delete_model(self, request: HttpRequest, obj: ModelEndpoint) -> None:
        services.delete_endpoint(obj)
