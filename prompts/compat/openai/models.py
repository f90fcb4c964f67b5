"""`/v1/models`: the project's endpoints, and the stored prompts that know their model."""

from typing import Any

import msgspec
from django.http import HttpResponse

from autoforge.db.threads import in_db_thread
from autoforge.errors import AppError
from autoforge.models import Project
from prompts.compat.openai.calls import PROMPT_PREFIX, find_prompt
from prompts.compat.openai.embeddings import EMBEDDINGS_MODEL
from prompts.compat.openai.errors import unknown_model
from prompts.compat.openai.surface import Exchange, json_response
from prompts.models import Label, ModelEndpoint

# OpenAI's list has no pages.
MAX_LISTED = 1_000


async def list_models(exchange: Exchange) -> HttpResponse:
    """All that a request's `model` may name, prompts by their labels."""
    models = await in_db_thread(_listed)(exchange.project)
    return json_response(msgspec.json.encode({"object": "list", "data": models}))


async def show_model(exchange: Exchange, model: str) -> HttpResponse:
    """One of them. Raises ModelNotFound."""
    return json_response(msgspec.json.encode(await in_db_thread(_one)(exchange.project, model)))


async def refuse_path(exchange: Exchange) -> HttpResponse:
    """The rest of the surface."""
    raise _UnknownUrl(f"Unknown request URL: {exchange.request.method} {exchange.request.path}.")


class _UnknownUrl(AppError):
    status, code = 404, "unknown_url"


def _listed(project: Project) -> list[dict[str, Any]]:
    endpoints = ModelEndpoint.objects.in_project(project).order_by("name")
    labels = Label.objects.filter(prompt__project=project, version__config__has_key="model")
    named = labels.order_by("prompt__name", "name").values_list("prompt__name", "name", "version__created_at")
    return [
        *(
            _model(name, created_at)
            for name, created_at in endpoints.values_list("name", "created_at")[:MAX_LISTED]
        ),
        *(
            _model(f"{PROMPT_PREFIX}{prompt}@{label}", created_at)
            for prompt, label, created_at in named[:MAX_LISTED]
        ),
        _model(EMBEDDINGS_MODEL),
    ]


def _one(project: Project, model: str) -> dict[str, Any]:
    if model == EMBEDDINGS_MODEL:
        return _model(model)
    if model.startswith(PROMPT_PREFIX):
        return _model(model, find_prompt(project, model).created_at)
    # PostgreSQL fails on U+0000.
    named = ModelEndpoint.objects.in_project(project).filter(name=model.replace("\0", "/"))
    created_at = named.values_list("created_at", flat=True).first()
    if created_at is None:
        raise unknown_model(model)
    return _model(model, created_at)


def _model(name: str, created_at: Any = None) -> dict[str, Any]:
    created = int(created_at.timestamp()) if created_at else 0
    return {"id": name, "object": "model", "created": created, "owned_by": "autoforge"}
