"""Who is calling: API keys by Bearer or Basic, browser sessions by cookie; always within one project."""

import base64
import binascii
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import timezone

from autoforge.errors import Forbidden, NotAuthenticated
from autoforge.logins import address_of, note_failure, require_few_failures
from autoforge.models import ApiKey, Membership, Project, Role
from autoforge.trimming import can_trim

_LAST_USED_STEP = timedelta(minutes=1)
_MAX_CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, in which project, with which role."""

    project: Project
    role: Role
    name: str
    key_id: int | None = None
    user_id: int | None = None
    rate_limit_per_min: int | None = None
    budget_usd: Decimal | None = None

    @property
    def is_owner(self) -> bool:
        return self.role.includes(Role.OWNER)

    def require(self, role: Role) -> None:
        """Raises Forbidden unless this actor has at least `role`."""
        if not self.role.includes(role):
            raise Forbidden(f"This needs the role {role.value}; {self.name} is {self.role.value}.")

    @classmethod
    def system(cls, project: Project, name: str = "system") -> "Actor":
        """The operator at the command line: may do everything in `project`."""
        return cls(project=project, role=Role.OWNER, name=name)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an Authorization header carries; `public_id` only with Basic."""

    secret: str
    public_id: str | None = None


def new_secret() -> str:
    """A fresh key secret: 256 random bits."""
    return f"af_sk_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """Hex SHA-256; a slow hash protects guessable passwords, and a 256-bit random secret is none."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_authorization(header: str) -> Credentials | None:
    """Credentials of a Bearer or Basic header value; None when it is empty, another scheme or broken."""
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer" if value:
            return Credentials(value.strip())
        case "basic":
            return _parse_basic(value)
        case _:
            return None


def _parse_basic(value: str) -> Credentials | None:
    try:
        public_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(secret, public_id) if secret else None


class _KeyCopies:
    """Actors by secret hash, kept in the process for about a second: a hot key costs no query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[str, tuple[float, Actor, str]] = {}

    def get(self, digest: str) -> tuple[Actor, str] | None:
        copy = self._copies.get(digest)
        return copy[1:] if copy and copy[0] > time.monotonic() else None

    def put(self, digest: str, actor: Actor, public_id: str) -> None:
        with self._lock:
            if len(self._copies) >= _MAX_CACHED_KEYS:
                self._copies.clear()
            self._copies[digest] = (time.monotonic() + settings.API_KEY_CACHE_S, actor, public_id)

    def has_seen(self, digest: str) -> bool:
        """Whether this key was good not too long ago."""
        return digest in self._copies

    def clear(self) -> None:
        self._copies.clear()


key_copies = _KeyCopies()
can_trim("API keys", key_copies.clear)


def actor_of_key(credentials: Credentials, address: str = "") -> Actor:
    """The actor behind a key. Raises NotAuthenticated for unknown, revoked or expired ones.

    Raises RateLimited for a key never seen before, from an address with too many wrong ones.
    """
    digest = hash_secret(credentials.secret)
    copy = key_copies.get(digest)
    if copy is None and not key_copies.has_seen(digest):
        require_few_failures(address)
    try:
        return _checked(credentials, copy or _load_key(digest))
    except NotAuthenticated:
        note_failure(address)
        raise


def remembered_actor(request: HttpRequest) -> Actor | None:
    """The caller, if it sent a key that this process looked up within the last second: no query."""
    credentials = parse_authorization(request.headers.get("Authorization", ""))
    copy = key_copies.get(hash_secret(credentials.secret)) if credentials else None
    return _checked(credentials, copy) if credentials and copy else None


def _checked(credentials: Credentials, copy: tuple[Actor, str]) -> Actor:
    actor, public_id = copy
    sent = credentials.public_id
    if sent is not None and not secrets.compare_digest(sent.encode(), public_id.encode()):
        raise NotAuthenticated("The public and the secret part belong to different API keys.")
    return actor


def _load_key(digest: str) -> tuple[Actor, str]:
    key = ApiKey.objects.usable().filter(secret_hash=digest).select_related("project").first()
    if key is None:
        raise NotAuthenticated("This API key is unknown, revoked or expired.")
    _touch(key)
    actor = Actor(
        key.project,
        Role(key.role),
        key.name,
        key_id=key.pk,
        rate_limit_per_min=key.rate_limit_per_min,
        budget_usd=key.budget_usd,
    )
    key_copies.put(digest, actor, key.public_id)
    return actor, key.public_id


def _touch(key: ApiKey) -> None:
    """Note the use, at most once a minute: one conditional UPDATE, no row lock otherwise."""
    if key.last_used_at and key.last_used_at > timezone.now() - _LAST_USED_STEP:
        return
    stale = Q(last_used_at=None) | Q(last_used_at__lt=timezone.now() - _LAST_USED_STEP)
    ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=Now())


def actor_of_user(user_id: int, *, is_superuser: bool, name: str, project_name: str | None) -> Actor:
    """A signed-in user's actor in `project_name`, else in their first project. Raises NotAuthenticated."""
    if is_superuser:
        projects = (
            Project.objects.filter(name=project_name) if project_name else Project.objects.order_by("pk")
        )
        if project := projects.first():
            return Actor(project, Role.OWNER, name, user_id=user_id)
        raise NotAuthenticated("There is no such project.")
    memberships = Membership.objects.filter(user_id=user_id).select_related("project").order_by("pk")
    member = (memberships.filter(project__name=project_name) if project_name else memberships).first()
    if member is None:
        raise NotAuthenticated("This user is not a member of that project.")
    return Actor(member.project, Role(member.role), name, user_id=user_id)


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        raise Forbidden(f"Requests with a session cookie need a CSRF token: {reason}")


def _no_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def authenticate(request: HttpRequest) -> Actor:
    """The caller of a REST request. Raises NotAuthenticated, or Forbidden without a CSRF token."""
    if header := request.headers.get("Authorization"):
        credentials = parse_authorization(header)
        if credentials is None:
            raise NotAuthenticated(
                "The Authorization header must be 'Bearer af_sk_…' or Basic 'af_pk_…:af_sk_…'."
            )
        return actor_of_key(credentials, address_of(request))
    user = request.user
    if not user.is_authenticated:
        raise NotAuthenticated("Send an API key as 'Authorization: Bearer af_sk_…', or sign in.")
    check = _CsrfCheck(_no_response)
    check.process_request(request)
    check.process_view(request, _no_response, (), {})
    project_name = request.headers.get("X-AutoForge-Project")
    return actor_of_user(
        user.pk, is_superuser=user.is_superuser, name=user.get_username(), project_name=project_name
    )
