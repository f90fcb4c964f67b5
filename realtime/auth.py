"""Who opens a WebSocket: an API key, a one-time ticket, or the session of a browser at our own origin."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest, parse_cookie
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from autoforge.auth import Actor, actor_of_key, actor_of_user, parse_authorization
from autoforge.errors import NotAuthenticated
from realtime.rights import Login
from realtime.threads import in_thread
from realtime.tickets import redeem

Scope = Mapping[str, Any]


class Guest(NamedTuple):
    """Who is let in; `login` when a browser's session vouches for them."""

    actor: Actor
    login: Login | None = None


async def authenticate(scope: Scope) -> Guest:
    """The client of a handshake. Raises NotAuthenticated, and RateLimited after too many wrong keys.

    One query for a key, none for one seen within the last second; one for a key's ticket; a session takes
    two (user, membership). `?project=` chooses among a user's projects.
    """
    headers = _headers(scope)
    query = _query(scope)
    if authorization := headers.get(b"authorization"):
        return Guest(await _by_key(authorization.decode("latin-1"), _address(scope, headers)))
    if ticket := query.get("ticket"):
        return Guest(*await in_thread(redeem, ticket[0]))
    if not is_own_origin(headers):
        raise NotAuthenticated("Send an Authorization header or ?ticket=; a session needs our own origin.")
    cookies = parse_cookie(headers.get(b"cookie", b"").decode("latin-1"))
    if session_key := cookies.get(settings.SESSION_COOKIE_NAME):
        return await in_thread(_by_session, session_key, query.get("project", [None])[0])
    raise NotAuthenticated("Send an API key, a ticket from POST /api/v1/ws-tickets, or sign in.")


def is_own_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the page that opens the WebSocket is ours: browsers send cookies from every page.

    The Origin must be the very host that is asked, and allowed, or be in CSRF_TRUSTED_ORIGINS.
    """
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    host = headers.get(b"host", b"").decode("latin-1").lower()
    try:
        parts = urlsplit(origin)
    except ValueError:  # no URL at all
        return False
    if not parts.netloc:
        return False
    if parts.netloc == host and validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        return True
    return any(_is_trusted(parts.scheme, parts.netloc, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS)


def _is_trusted(scheme: str, netloc: str, trusted: str) -> bool:
    """`trusted` may be https://*.example.com, as Django has it."""
    parts = urlsplit(trusted)
    return scheme == parts.scheme and is_same_domain(netloc, parts.netloc.lstrip("*"))


def _query(scope: Scope) -> dict[str, list[str]]:
    """Raises NotAuthenticated for a character that no text column can hold."""
    text = scope["query_string"].decode("latin-1")
    if "\0" in unquote(text):
        raise NotAuthenticated("The address holds a NUL character.")
    return parse_qs(text)


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in scope["headers"]}


def _address(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """The client's, or what our proxy added last to the header."""
    direct = str((scope.get("client") or ("",))[0])
    if not settings.BEHIND_PROXY:
        return direct
    return headers.get(b"x-forwarded-for", b"").decode("latin-1").rpartition(",")[2].strip() or direct


async def _by_key(authorization: str, address: str) -> Actor:
    credentials = parse_authorization(authorization)
    if credentials is None:
        raise NotAuthenticated("The Authorization header must be 'Bearer af_sk_…' or Basic.")
    return await in_thread(actor_of_key, credentials, address)


def _by_session(session_key: str, project_name: str | None) -> Guest:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    if not user.is_authenticated:
        raise NotAuthenticated("This session has ended: sign in again.")
    actor = actor_of_user(
        user.pk, is_superuser=user.is_superuser, name=user.get_username(), project_name=project_name
    )
    return Guest(actor, Login.of(session_key, user.password))
