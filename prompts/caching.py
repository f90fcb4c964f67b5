"""Prompt reads as they are answered: kept encoded until something happens to the prompt."""

from functools import partial

import msgspec

from autoforge.caching import ReadThrough
from autoforge.copies import Kept
from autoforge.models import Project
from prompts.events import PromptEvent, prompt_event
from prompts.reads import resolve_version
from prompts.schemas import PromptOut

reads = ReadThrough("prompt_metadata")
_decoder = msgspec.json.Decoder(PromptOut)


def read_prompt(
    project: Project,
    name: str,
    *,
    label: str | None = None,
    version: int | None = None,
    fresh: bool = False,
) -> Kept:
    """The version at `label` or with number `version` as JSON; by default production, else latest.

    At most PROCESS_CACHE_S seconds behind; `fresh` shows every change announced before it.
    Raises NotFound, InvalidInput when both choices are given.
    """
    load = partial(_load, project, name, label, version)
    return reads.get((project.pk, name), (label, version), load, fresh=fresh)


def find_prompt(
    project: Project,
    name: str,
    *,
    label: str | None = None,
    version: int | None = None,
    fresh: bool = False,
) -> PromptOut:
    """`read_prompt` for those who use what it says."""
    return _decoder.decode(read_prompt(project, name, label=label, version=version, fresh=fresh).body)


def _load(project: Project, name: str, label: str | None, version: int | None) -> bytes:
    found = resolve_version(project, name, label=label, version=version, for_show=True)
    return msgspec.json.encode(PromptOut.of(found))


def connect() -> None:
    """Forget what is kept of a prompt whenever something happens to it."""
    prompt_event.connect(_forget, dispatch_uid="prompts.caching")


def _forget(sender: object, event: PromptEvent, **_: object) -> None:
    reads.forget((event.project_id, event.prompt))
