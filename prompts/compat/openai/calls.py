"""From OpenAI's request to ours: an endpoint or a stored prompt, and its fallbacks in order."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from autoforge.db.threads import in_db_thread
from autoforge.errors import InvalidInput, NotFound
from autoforge.models import Project
from prompts.caching import find_prompt as cached_prompt
from prompts.compat.openai.errors import unknown_model
from prompts.compat.openai.schemas import MAX_FALLBACKS, ChatRequest, Manner
from prompts.endpoint_copies import load_endpoint, remembered_endpoint
from prompts.endpoint_rules import own_params
from prompts.llm.providers.base import Endpoint, Request, merge_params
from prompts.rendering import RenderError, render
from prompts.schemas import PromptOut

PROMPT_PREFIX = "prompt:"


class PromptModel(NamedTuple):
    """A model's name that stands for a stored prompt."""

    name: str
    label: str | None = None
    version: int | None = None

    @classmethod
    def of(cls, model: str) -> "PromptModel":
        """`prompt:<name>`, `prompt:<name>@<label>`, `prompt:<name>@<number of a version>`."""
        name, _, place = model.removeprefix(PROMPT_PREFIX).partition("@")
        if place.isdecimal() and len(place) < 10:
            return cls(name, version=int(place))
        return cls(name, label=place or None)


async def requests_of(project: Project, body: ChatRequest, manner: Manner) -> tuple[Request, ...]:
    """What is asked first, and what if that fails. At most one query where nothing is remembered.

    Raises ModelNotFound, InvalidInput.
    """
    if body.model.startswith(PROMPT_PREFIX):
        return await in_db_thread(_of_prompt)(project, body, manner)
    messages = [_plain(message) for message in body.messages]
    endpoints = [await _endpoint(project, name) for name in (body.model, *body.fallbacks)]
    return tuple(_request(endpoint, messages, body.params, manner) for endpoint in endpoints)


def find_prompt(project: Project, model: str) -> PromptOut:
    """The version that a model's name stands for, as prompt reads are cached. Raises ModelNotFound."""
    choice = PromptModel.of(model)
    if "\0" in model:
        raise unknown_model(model)
    try:
        return cached_prompt(project, choice.name, label=choice.label, version=choice.version)
    except NotFound as error:
        raise unknown_model(model) from error


def find_endpoint(project: Project, name: str) -> Endpoint:
    """Raises ModelNotFound."""
    if "\0" in name:  # PostgreSQL fails on it
        raise unknown_model(name)
    try:
        return load_endpoint(project, name)
    except NotFound as error:
        raise unknown_model(name) from error


def _of_prompt(project: Project, body: ChatRequest, manner: Manner) -> tuple[Request, ...]:
    """The rendered prompt, and after it the messages of the request."""
    prompt = find_prompt(project, body.model)
    first = body.endpoint or prompt.config.get("model")
    if not isinstance(first, str) or not first:
        sentence = f"The config of {body.model} names no model: add 'endpoint' to the request."
        raise InvalidInput(sentence, param="endpoint")
    messages = [*_rendered(prompt, (body.metadata or {}) | (body.vars or {})), *map(_plain, body.messages)]
    params = own_params(prompt.config) | body.params
    names = (first, *(body.fallbacks or _fallbacks(prompt)))
    endpoints = [find_endpoint(project, name) for name in names]
    return tuple(_request(endpoint, messages, params, manner) for endpoint in endpoints)


def _fallbacks(prompt: PromptOut) -> list[str]:
    """Those that the prompt's config names."""
    try:
        return msgspec.convert(prompt.config.get("fallbacks") or [], _Fallbacks)
    except msgspec.ValidationError as error:
        sentence = (
            f"The config of {prompt.name} has fallbacks that are no list of up to {MAX_FALLBACKS} names."
        )
        raise InvalidInput(sentence) from error


_Fallbacks = Annotated[list[str], Meta(max_length=MAX_FALLBACKS)]


def _rendered(prompt: PromptOut, vars: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return render(prompt.template, "chat" if prompt.type == "chat" else "text", vars)
    except RenderError as error:
        raise InvalidInput(str(error), missing=error.missing) from error


async def _endpoint(project: Project, name: str) -> Endpoint:
    return remembered_endpoint(project, name) or await in_db_thread(find_endpoint)(project, name)


def _request(
    endpoint: Endpoint, messages: Sequence[dict[str, Any]], params: Mapping[str, Any], manner: Manner
) -> Request:
    return Request(
        endpoint=endpoint,
        messages=tuple(messages),
        params=merge_params(endpoint.params, params),
        cache=manner.cache,
        cache_terms=manner.terms,
        max_attempts=manner.max_attempts,
    )


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without the nulls of an answer that was sent back: two spellings of a question are one."""
    return {name: value for name, value in message.items() if value is not None or name == "content"}
