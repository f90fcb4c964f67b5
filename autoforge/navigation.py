"""The desk's way around: what the signed-in user may open, in the order of the work."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

# Title, icon and model of each page.
_PAGES = (
    ("Prompts", "chat", "prompts.Prompt"),
    ("Models", "neurology", "prompts.ModelEndpoint"),
    ("Data sets", "dataset", "evaluations.Dataset"),
    ("Runs", "play_circle", "evaluations.Run"),
    ("Results", "fact_check", "evaluations.Result"),
    ("Keys", "key", "autoforge.ApiKey"),
    ("Projects", "workspaces", "autoforge.Project"),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups of links beside every page, as the admin theme wants them."""
    home = {"title": "Dashboard", "icon": "monitoring", "link": reverse("admin:index")}
    items = [_item(title, icon, label) for title, icon, label in _PAGES if _is_open(request, label)]
    return [{"items": [home, *items]}]


def _is_open(request: HttpRequest, label: str) -> bool:
    pages = admin.site._registry.get(apps.get_model(label))
    return pages is not None and pages.has_module_permission(request)


def _item(title: str, icon: str, label: str) -> dict[str, Any]:
    name = label.lower().replace(".", "_")
    return {"title": title, "icon": icon, "link": reverse(f"admin:{name}_changelist")}
