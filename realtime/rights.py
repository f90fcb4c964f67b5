"""An open WebSocket lives longer than the rights it was opened with: those are looked up again and again."""

from collections.abc import Iterable
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.utils import timezone

from autoforge.auth import Actor
from autoforge.models import ApiKey, Membership, Role


class Login(NamedTuple):
    """A browser's session: its key, and a number that changes with the user's password."""

    session_key: str
    password: int

    @classmethod
    def of(cls, session_key: str, encoded_password: str) -> "Login":
        return cls(session_key, hash(encoded_password))


class Right(NamedTuple):
    """What somebody was let in for: a key or a user, in a project, with a role."""

    key_id: int | None
    user_id: int | None
    project_id: int
    role: str
    login: Login | None = None
    is_for_staff: bool = False


class _User(NamedTuple):
    pk: int
    password: str
    is_superuser: bool
    is_staff: bool


def right_of(actor: Actor, login: Login | None = None, *, is_for_staff: bool = False) -> Right:
    """What `actor` was let in for; `is_for_staff` when they follow what only staff may."""
    return Right(actor.key_id, actor.user_id, actor.project.pk, actor.role, login, is_for_staff)


def withdrawn(rights: Iterable[Right]) -> set[Right]:
    """Those of `rights` that hold no more: revoked, expired, signed out, another role.

    One query for all keys, and three when there are users (users, memberships, sessions).
    """
    asked = set(rights)
    with_key = {right for right in asked if right.key_id is not None}
    with_user = {right for right in asked if right.user_id is not None}
    return (with_key - _of_keys(with_key)) | (with_user - _of_users(with_user))


def _of_keys(asked: set[Right]) -> set[Right]:
    keys = ApiKey.objects.usable().filter(pk__in={right.key_id for right in asked})
    found = keys.values_list("pk", "project_id", "role")
    return {Right(key, None, project, role) for key, project, role in found}


def _of_users(asked: set[Right]) -> set[Right]:
    users = _active_users(asked)
    members = set(Membership.objects.filter(user__in=users).values_list("user_id", "project_id", "role"))
    sessions = _open_sessions(asked)
    return {
        right
        for right in asked
        if (user := users.get(right.user_id))
        and (right[1:4] in members or (user.is_superuser and right.role == Role.OWNER))
        and (right.login is None or _is_signed_in(user, right.login, sessions))
        and (user.is_staff or not right.is_for_staff)
    }


def _active_users(asked: set[Right]) -> dict[int | None, _User]:
    users = get_user_model()._default_manager.filter(
        pk__in={right.user_id for right in asked}, is_active=True
    )
    return {row[0]: _User(*row) for row in users.values_list(*_User._fields)}


def _open_sessions(asked: set[Right]) -> set[str]:
    keys = {right.login.session_key for right in asked if right.login}
    alive = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    return set(alive.values_list("session_key", flat=True))


def _is_signed_in(user: _User, login: Login, sessions: set[str]) -> bool:
    return login == Login.of(login.session_key, user.password) and login.session_key in sessions
