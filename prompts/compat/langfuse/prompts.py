"""`/api/public/v2/prompts`: our prompts, with only the label production as a default, as Langfuse has it."""

from typing import Any

from django.db import transaction
from django.http import HttpResponse

from autoforge.auth import Actor
from autoforge.errors import Conflict, InvalidInput, NotFound
from autoforge.models import Project
from prompts import services
from prompts.caching import find_prompt
from prompts.compat.langfuse.listing import shown_prompts
from prompts.compat.langfuse.schemas import (
    LangfusePrompt,
    NewLabels,
    NewPrompt,
    PromptQuery,
    PromptsQuery,
)
from prompts.compat.langfuse.surface import Exchange, json_response, page_of
from prompts.compat.langfuse.texts import to_messages, to_template
from prompts.models import Prompt, PromptType
from prompts.names import LATEST, PRODUCTION
from prompts.reads import get_prompt, resolve_version
from prompts.schemas import MAX_VERSION, PromptOut


def show_prompt(exchange: Exchange, name: str) -> HttpResponse:
    """The version at `?label=` or `?version=`. A missing label is 404, as theirs is. Raises NotFound."""
    query = exchange.query(PromptQuery)
    project = exchange.project
    label = query.label or (PRODUCTION if query.version is None else None)
    try:
        shown = find_prompt(project, name, label=label, version=query.version, fresh=True)
    except NotFound as error:
        wanted = f"version {query.version}" if query.version is not None else f"label '{label}'"
        raise NotFound(f"Prompt not found: '{name}' with {wanted}") from error
    return json_response(LangfusePrompt.of(shown, project.pk))


def list_prompts(exchange: Exchange) -> HttpResponse:
    """One page by name."""
    query = exchange.query(PromptsQuery)
    prompts = Prompt.objects.in_project(exchange.project).matching(label=query.label, tag=query.tag)
    if query.name is not None:
        prompts = prompts.filter(name=query.name)
    if query.from_updated_at:
        prompts = prompts.filter(updated_at__gte=query.from_updated_at)
    if query.to_updated_at:
        prompts = prompts.filter(updated_at__lt=query.to_updated_at)
    return page_of(prompts.order_by("name"), query, shown_prompts)


def create_prompt(exchange: Exchange) -> HttpResponse:
    """A version; of a new name the first one. The same content again is the version that has it."""
    new = exchange.body(NewPrompt)
    try:
        number = _store(exchange.project, new, exchange.actor)
    except Conflict:  # somebody created it between the two queries
        number = _store(exchange.project, new, exchange.actor)
    return _shown(exchange.project, new.name, number, status=201)


@transaction.atomic
def _store(project: Project, new: NewPrompt, actor: Actor) -> int:
    kind = new.type or PromptType.TEXT
    content: dict[str, Any] = {
        "template": to_template(new.prompt) if isinstance(new.prompt, str) else to_messages(new.prompt),
        "config": _checked_config(new),
        "labels": [label for label in new.labels or [] if label != LATEST],
        "message": new.commit_message or "",
        "actor": actor,
    }
    stored = Prompt.objects.in_project(project).filter(name=new.name).first()
    if stored is None:
        tags = new.tags or []
        return services.create_prompt(project, name=new.name, type=kind, tags=tags, **content).number
    if stored.type != kind:
        raise InvalidInput(
            f"The earlier versions of {new.name!r} have the type {stored.type}: use another name."
        )
    if new.tags is not None:
        services.set_tags(stored, tags=new.tags)
    return services.add_version(stored, **content).version.number


def _checked_config(new: NewPrompt) -> dict[str, object]:
    if new.config is None:
        return {}
    if not isinstance(new.config, dict):
        raise InvalidInput("config must be an object.")
    return new.config


def point_labels(exchange: Exchange, name: str, version: int) -> HttpResponse:
    """Point the new labels at the version: other versions lose them."""
    labels = exchange.body(NewLabels).new_labels
    prompt = get_prompt(exchange.project, name)
    if version > MAX_VERSION:
        raise NotFound(f"The prompt {name!r} has no version {version}.")
    with transaction.atomic():
        for label in labels:
            services.move_label(prompt, label=label, version=version, actor=exchange.actor)
    return _shown(exchange.project, name, version)


def delete_prompt(exchange: Exchange, name: str) -> HttpResponse:
    """The whole prompt, or its versions at `?label=` or `?version=`."""
    query = exchange.query(PromptQuery)
    prompt = get_prompt(exchange.project, name)
    if query.label is None and query.version is None:
        services.delete_prompt(prompt, actor=exchange.actor)
    else:
        found = resolve_version(exchange.project, name, label=query.label, version=query.version)
        services.delete_version(found, actor=exchange.actor)
    return HttpResponse(status=204)


def _shown(project: Project, name: str, version: int, status: int = 200) -> HttpResponse:
    found = resolve_version(project, name, version=version, for_show=True)
    return json_response(LangfusePrompt.of(PromptOut.of(found), project.pk), status)
