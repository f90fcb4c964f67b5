"""One-time tickets, for browsers that cannot send an Authorization header with a WebSocket."""

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache

from autoforge.auth import Actor, actor_of_user, hash_secret
from autoforge.errors import NotAuthenticated, Unavailable
from autoforge.models import ApiKey, Role
from realtime.rights import Login

_REFUSED = "This ticket is unknown, used or older than {} s: ask for a new one."


def issue(actor: Actor, session_key: str | None = None) -> str:
    """A ticket that `actor` may use once within WS_TICKET_TTL_S, in any process. Raises Unavailable.

    Of a user with a session it is worth as much as that, and no longer.
    """
    ticket = secrets.token_urlsafe(32)
    stored = {
        "key_id": actor.key_id,
        "user_id": actor.user_id,
        "project": actor.project.name,
        "session_key": session_key,
    }
    if not cache.add(_cache_key(ticket), stored, settings.WS_TICKET_TTL_S):
        raise Unavailable("Tickets cannot be kept right now: try again.")
    return ticket


def redeem(ticket: str) -> tuple[Actor, Login | None]:
    """Who asked for `ticket`, with the rights of this moment. Raises NotAuthenticated."""
    cache_key = _cache_key(ticket)
    stored = cache.get(cache_key)
    # Of many that take it at once only one deletes it.
    if stored is None or not cache.delete(cache_key):
        raise NotAuthenticated(_REFUSED.format(settings.WS_TICKET_TTL_S))
    return (_of_key(stored["key_id"]), None) if stored["key_id"] else _of_user(stored)


def _cache_key(ticket: str) -> str:
    return f"ws-ticket:{hash_secret(ticket)}"


def _of_key(key_id: int) -> Actor:
    key = ApiKey.objects.usable().filter(pk=key_id).select_related("project").first()
    if key is None:
        raise NotAuthenticated("The API key behind this ticket has been revoked.")
    return Actor(
        key.project,
        Role(key.role),
        key.name,
        key_id,
        rate_limit_per_min=key.rate_limit_per_min,
        budget_usd=key.budget_usd,
    )


def _of_user(stored: dict[str, Any]) -> tuple[Actor, Login | None]:
    user = get_user_model()._default_manager.filter(pk=stored["user_id"], is_active=True).first()
    if user is None:
        raise NotAuthenticated("The user behind this ticket may not sign in any more.")
    actor = actor_of_user(
        user.pk, is_superuser=user.is_superuser, name=user.get_username(), project_name=stored["project"]
    )
    session_key = stored["session_key"]
    return actor, Login.of(session_key, user.password) if session_key else None
