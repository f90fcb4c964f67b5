"""An open WebSocket lives longer than the rights it was opened with: those are looked up again and again."""

from collections.abc import Iterable

from django.contrib.auth import get_user_model

from autoforge.auth import Actor
from autoforge.models import ApiKey, Membership, Role

# Key or None, user or None, project, role.
Right = tuple[int | None, int | None, int, str]


def right_of(actor: Actor) -> Right:
    """What `actor` was let in for."""
    return (actor.key_id, actor.user_id, actor.project.pk, actor.role)


def withdrawn(rights: Iterable[Right]) -> set[Right]:
    """Those of `rights` that hold no more: revoked, expired, another role. At most 3 queries."""
    asked = set(rights)
    return asked - _of_keys(asked) - _of_members(asked) - _of_superusers(asked)


def _of_keys(asked: set[Right]) -> set[Right]:
    keys = ApiKey.objects.usable().filter(pk__in={key for key, *_ in asked if key is not None})
    return {(key, None, project, role) for key, project, role in keys.values_list("pk", "project_id", "role")}


def _of_members(asked: set[Right]) -> set[Right]:
    members = Membership.objects.filter(user__in=_users(asked), user__is_active=True)
    found = members.values_list("user_id", "project_id", "role")
    return {(None, user, project, role) for user, project, role in found}


def _of_superusers(asked: set[Right]) -> set[Right]:
    users = get_user_model()._default_manager.filter(pk__in=_users(asked), is_active=True, is_superuser=True)
    allowed = set(users.values_list("pk", flat=True))
    return {right for right in asked if right[1] in allowed and right[3] == Role.OWNER}


def _users(asked: set[Right]) -> set[int]:
    return {user for _, user, *_ in asked if user is not None}
