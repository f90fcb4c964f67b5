"""Writes to prompts and their versions."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet, Subquery
from django.db.models.functions import Now

from autoforge.auth import Actor
from autoforge.db.statements import Statement
from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from prompts import events
from prompts.models import Label, Prompt, PromptType, PromptVersion
from prompts.names import check_prompt_name, check_tags
from prompts.services.labels import lock_prompt, point_labels, record_move, require_right_to
from prompts.templates import check_template, hash_content

MAX_MESSAGE_CHARS = 500


class AddedVersion(NamedTuple):
    """A version, and whether it was made or had the same content before."""

    version: PromptVersion
    is_new: bool


@transaction.atomic
def create_prompt(
    project: Project,
    *,
    name: str,
    type: str,
    template: Any,
    actor: Actor,
    config: dict[str, Any] | None = None,
    labels: Iterable[str] = (),
    tags: Iterable[str] = (),
    message: str = "",
) -> PromptVersion:
    """A prompt with its version 1. Raises InvalidInput, Conflict when the name is taken, Forbidden."""
    check_prompt_name(name)
    if type not in PromptType:
        raise InvalidInput(f"The type {type!r} must be 'text' or 'chat'.")
    used = check_template(type, template)
    prompt = _insert_prompt(
        project=project, name=name, type=type, tags=check_tags(tags), created_by=actor.name
    )
    return _insert_version(prompt, 1, template, config or {}, used, labels, message, actor)


def _insert_prompt(**fields: Any) -> Prompt:
    try:
        with transaction.atomic():
            prompt = Prompt.objects.create(**fields)
    except IntegrityError as error:
        raise Conflict(
            f"There is a prompt {fields['name']!r} already: add a version to it with "
            f"POST prompts/{fields['name']}/versions."
        ) from error
    return lock_prompt(prompt)


@transaction.atomic
def add_version(
    prompt: Prompt,
    *,
    template: Any,
    actor: Actor,
    config: dict[str, Any] | None = None,
    labels: Iterable[str] = (),
    message: str = "",
) -> AddedVersion:
    """The next version of `prompt`, or the one that has this template and config already.

    `labels` move to it either way. Raises InvalidInput, NotFound, Forbidden for a protected label.
    """
    used = check_template(prompt.type, template)
    # The lock gives each of several concurrent callers its own number.
    locked = lock_prompt(prompt)
    content = hash_content(locked.type, template, config or {})
    found = list(_same_or_newest.rows(prompt=locked.pk, content=content))
    if same := next((version for version in found if version.content_hash == content), None):
        point_labels(locked, labels, same, actor)
        return AddedVersion(same, is_new=False)
    number = max((version.number for version in found), default=0) + 1
    version = _insert_version(locked, number, template, config or {}, used, labels, message, actor)
    return AddedVersion(version, is_new=True)


def _build_same_or_newest(prompt: Any, content: Any) -> "QuerySet[PromptVersion]":
    versions = PromptVersion.objects.filter(prompt=prompt)
    newest = versions.order_by("-number").values("pk")[:1]
    return versions.filter(Q(content_hash=content) | Q(pk=Subquery(newest)))


_same_or_newest = Statement(_build_same_or_newest)


def _insert_version(
    prompt: Prompt,
    number: int,
    template: Any,
    config: dict[str, Any],
    used: list[str],
    labels: Iterable[str],
    message: str,
    actor: Actor,
) -> PromptVersion:
    if len(message) > MAX_MESSAGE_CHARS:
        raise InvalidInput(f"message has at most {MAX_MESSAGE_CHARS} characters, not {len(message)}.")
    version = PromptVersion.objects.create(
        prompt=prompt,
        number=number,
        template=template,
        config=config,
        variables=used,
        message=message,
        content_hash=hash_content(prompt.type, template, config),
        created_by=actor.name,
    )
    Prompt.objects.filter(pk=prompt.pk).update(updated_at=Now())
    event = events.VersionCreated(project_id=prompt.project_id, prompt=prompt.name, version=number)
    transaction.on_commit(partial(events.emit, event))
    point_labels(prompt, labels, version, actor)
    return version


@transaction.atomic
def set_tags(prompt: Prompt, *, tags: Iterable[str]) -> Prompt:
    """Replace the tags of `prompt`. Raises InvalidInput, NotFound."""
    locked = lock_prompt(prompt)
    locked.tags = check_tags(tags)
    Prompt.objects.filter(pk=locked.pk).update(tags=locked.tags, updated_at=Now())
    event = events.TagsChanged(project_id=locked.project_id, prompt=locked.name)
    transaction.on_commit(partial(events.emit, event))
    return locked


@transaction.atomic
def delete_prompt(prompt: Prompt, *, actor: Actor) -> None:
    """Delete `prompt` with all its versions. Raises Forbidden when one of its labels is protected."""
    locked = lock_prompt(prompt)
    require_right_to(locked, locked.labels.values_list("name", flat=True), actor)
    event = events.PromptDeleted(project_id=locked.project_id, prompt=locked.name)
    locked.delete()
    transaction.on_commit(partial(events.emit, event))


@transaction.atomic
def delete_version(version: PromptVersion, *, actor: Actor) -> None:
    """Delete `version`, and with the last one its prompt; labels that point at it are taken away.

    `latest` is then the highest number left. Raises NotFound, Forbidden when such a label is protected.
    """
    locked = lock_prompt(version.prompt)
    labels = list(Label.objects.filter(version=version).values_list("name", flat=True))
    require_right_to(locked, labels, actor)
    if not locked.versions.exclude(pk=version.pk).exists():
        delete_prompt(locked, actor=actor)
        return
    version.delete()
    for label in labels:
        record_move(locked, label, version.number, None, actor)
    Prompt.objects.filter(pk=locked.pk).update(updated_at=Now())
    event = events.VersionDeleted(project_id=locked.project_id, prompt=locked.name, version=version.number)
    transaction.on_commit(partial(events.emit, event))
