"""From the names in a request to what `prompts.llm` calls: endpoint, messages, parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from autoforge.errors import InvalidInput
from autoforge.models import Project
from prompts.caching import find_prompt
from prompts.endpoint_copies import load_endpoint
from prompts.endpoint_rules import check_params, own_params
from prompts.llm.providers.base import CacheUse, Endpoint, Request, merge_params
from prompts.models import PromptType
from prompts.rendering import RenderError, render
from prompts.schemas import PromptOut, VersionNumber


class PromptChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt by name, at a label or a version; by default production, else latest."""

    name: str
    label: str | None = None
    version: VersionNumber | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request ready to be sent, and the version that its messages came from."""

    request: Request
    version: PromptOut | None


def prepare_call(
    project: Project,
    *,
    prompt: str | PromptChoice | None = None,
    messages: Sequence[dict[str, Any]] | None = None,
    model: str | None = None,
    vars: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    cache: CacheUse = "use",
) -> Call:
    """What to send for a rendered `prompt`, or for literal `messages`: one of the two.

    No query when prompt and endpoint were read a moment ago, else at most 3.
    `model` names an endpoint; without it, the prompt's config may ("model"). Variables that the template
    does not use are ignored. Parameters of the call win
    over the prompt's config, which wins over the endpoint's. Raises NotFound, InvalidInput with the
    member `missing` when variables are.
    """
    if (prompt is None) == (messages is None):
        raise InvalidInput("Give either 'prompt' or 'messages'.")
    version = _version_of(project, prompt) if prompt is not None else None
    if version is not None:
        sent = render_version(version, vars or {})
    elif vars:
        raise InvalidInput("'vars' fill a prompt's template; 'messages' are sent as they are.")
    else:
        sent = list(messages or ())
    config = version.config if version else {}
    endpoint = _endpoint_of(project, model or config.get("model"))
    request = Request(
        endpoint=endpoint,
        messages=tuple(sent),
        params=merge_params(endpoint.params, own_params(config), check_params(params or {})),
        cache=cache,
    )
    return Call(request, version)


def build_request(
    project: Project,
    *,
    prompt: str | PromptChoice | None = None,
    messages: Sequence[dict[str, Any]] | None = None,
    model: str | None = None,
    vars: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    cache: CacheUse = "use",
) -> Request:
    """The request of `prepare_call` alone."""
    call = prepare_call(
        project, prompt=prompt, messages=messages, model=model, vars=vars, params=params, cache=cache
    )
    return call.request


def render_version(
    version: PromptOut, vars: Mapping[str, Any], *, refuse_unknown: bool = False
) -> list[dict[str, Any]]:
    """The messages of `version` filled with `vars`.

    Raises InvalidInput with the variables that are `missing`, and with `refuse_unknown` those that the
    template does not use.
    """
    unknown = sorted(vars.keys() - set(version.variables)) if refuse_unknown else []
    unknown_sentence = f"The template does not use {', '.join(unknown)}." if unknown else ""
    kind: Literal["text", "chat"] = "chat" if version.type == PromptType.CHAT else "text"
    try:
        messages = render(version.template, kind, vars)
    except RenderError as error:
        sentence = f"{error} {unknown_sentence}".strip()
        raise InvalidInput(sentence, missing=error.missing, unknown=unknown) from error
    if unknown:
        raise InvalidInput(unknown_sentence, missing=[], unknown=unknown)
    return messages


def _version_of(project: Project, prompt: str | PromptChoice) -> PromptOut:
    choice = PromptChoice(name=prompt) if isinstance(prompt, str) else prompt
    return find_prompt(project, choice.name, label=choice.label, version=choice.version)


def _endpoint_of(project: Project, model: Any) -> Endpoint:
    if not isinstance(model, str) or not model:
        raise InvalidInput("'model' is missing: name one of the project's models (GET models lists them).")
    return load_endpoint(project, model)
