"""Moving labels: protected ones only by owners, every move on record."""

from collections.abc import Iterable
from functools import partial

from django.db import transaction
from django.db.models.functions import Now

from autoforge.auth import Actor
from autoforge.db.statements import Statement
from autoforge.errors import Forbidden, InvalidInput, NotFound
from prompts import events
from prompts.models import Label, LabelMove, Prompt, PromptVersion
from prompts.names import MAX_LABELS, check_label

_locked_prompt = Statement(
    lambda pk: Prompt.objects.select_for_update(of=("self",)).select_related("project").filter(pk=pk)[:1]
)
_one_version = Statement(
    lambda prompt, number: PromptVersion.objects.filter(prompt=prompt, number=number)[:1]
)
_one_label = Statement(
    lambda prompt, name: Label.objects.filter(prompt=prompt, name=name).select_related("version")[:1]
)


@transaction.atomic
def move_label(prompt: Prompt, *, label: str, version: int, actor: Actor) -> Label:
    """Point `label` at version number `version`; where it points already, nothing happens.

    Raises InvalidInput for 'latest' and bad names, NotFound, Forbidden for a protected label.
    """
    check_label(label)
    locked = lock_prompt(prompt)
    target = _one_version.first(prompt=locked.pk, number=version)
    if target is None:
        raise NotFound(f"The prompt {locked.name!r} has no version {version}.")
    return point_label(locked, label, target, actor)


def point_labels(locked: Prompt, labels: Iterable[str], target: PromptVersion, actor: Actor) -> None:
    """Point each of `labels` at `target` of a locked prompt. Raises as `move_label`."""
    for label in dict.fromkeys(labels):
        point_label(locked, check_label(label), target, actor)


def point_label(locked: Prompt, label: str, target: PromptVersion, actor: Actor) -> Label:
    """Point `label` at `target` within the caller's transaction, which holds the prompt's lock."""
    require_right_to(locked, [label], actor)
    current = _one_label.first(prompt=locked.pk, name=label)
    if current is None:
        _check_room(locked)
        moved = Label.objects.create(prompt=locked, name=label, version=target)
        record_move(locked, label, None, target.number, actor)
        return moved
    if current.version_id != target.pk:
        number, current.version = current.version.number, target
        current.save(update_fields=["version"])
        record_move(locked, label, number, target.number, actor)
    return current


@transaction.atomic
def remove_label(prompt: Prompt, *, label: str, actor: Actor) -> None:
    """Take `label` away. Raises InvalidInput for 'latest', NotFound, Forbidden for a protected one."""
    check_label(label)
    locked = lock_prompt(prompt)
    current = _one_label.first(prompt=locked.pk, name=label)
    if current is None:
        raise NotFound(f"The prompt {locked.name!r} has no label {label!r}.")
    require_right_to(locked, [label], actor)
    current.delete()
    record_move(locked, label, current.version.number, None, actor)


def lock_prompt(prompt: Prompt) -> Prompt:
    """`prompt` as it is now, with its project; others wait for this transaction. Raises NotFound."""
    locked = _locked_prompt.first(pk=prompt.pk)
    if locked is None:
        raise NotFound(f"The prompt {prompt.name!r} has just been deleted.")
    return locked


def require_right_to(prompt: Prompt, labels: Iterable[str], actor: Actor) -> None:
    """Raises Forbidden if one of `labels` is protected and `actor` is no owner."""
    if actor.is_owner:
        return
    for label in labels:
        if label in prompt.project.protected_labels:
            raise Forbidden(f"The label {label!r} is protected: only an owner of the project may move it.")


def record_move(prompt: Prompt, label: str, old: int | None, new: int | None, actor: Actor) -> None:
    """Keep the move in the history, and tell the listeners after the commit."""
    LabelMove.objects.create(
        prompt=prompt, label=label, from_version=old, to_version=new, moved_by=actor.name
    )
    Prompt.objects.filter(pk=prompt.pk).update(updated_at=Now())
    event = events.LabelMoved(project_id=prompt.project_id, prompt=prompt.name, label=label, version=new)
    transaction.on_commit(partial(events.emit, event))


def _check_room(prompt: Prompt) -> None:
    if prompt.labels.count() >= MAX_LABELS:
        raise InvalidInput(f"A prompt has at most {MAX_LABELS} labels: take one away first.")
