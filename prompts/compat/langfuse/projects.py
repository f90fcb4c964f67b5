"""`/api/public/health` and `/projects`: whether we are here, and whose key it is."""

import msgspec
from django.http import HttpResponse

from prompts.compat.langfuse.surface import Exchange, json_response

# Of the API that we speak, not of ours: clients compare it.
VERSION = "4.0.0"


def show_health() -> HttpResponse:
    """Needs no key."""
    return json_response({"version": VERSION, "status": "OK"})


class Organization(msgspec.Struct):
    id: str
    name: str


class ListedProject(msgspec.Struct):
    id: str
    name: str
    organization: Organization
    metadata: dict[str, str] = {}


def list_projects(exchange: Exchange) -> HttpResponse:
    """The one project of the key; what Langfuse calls its organization has no counterpart here."""
    project = exchange.project
    number = str(project.pk)
    return json_response({"data": [ListedProject(number, project.name, Organization(number, project.name))]})
