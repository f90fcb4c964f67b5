"""System checks: wrong settings fail loudly at the start, with a sentence."""

from collections.abc import Collection, Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.urls import get_resolver
from django.utils.module_loading import import_string

from autoforge.http.async_handler import is_two_halves
from autoforge.models import Role

# Every process runs these when it starts; Django's own are for `manage.py check`.
OURS = "autoforge"
MIN_MEMORY_BYTES = 160 * 2**20
POOL_OPTIONS = {"POOL_SIZE", "MAX_OVERFLOW", "TIMEOUT", "RECYCLE", "PRE_PING", "ECHO"}


@register(OURS)
def production_needs_its_secrets(**_: Any) -> list[CheckMessage]:
    """DEBUG off without a SECRET_KEY or ALLOWED_HOSTS."""
    if settings.DEBUG:
        return []
    missing = [name for name in ("SECRET_KEY", "ALLOWED_HOSTS") if not _is_set(name)]
    return [
        Error(f"DEBUG is off and {name} is not set: put it into the environment or .env.") for name in missing
    ]


def _is_set(name: str) -> bool:
    try:
        return bool(getattr(settings, name))
    except ImproperlyConfigured:  # what Django does about an empty SECRET_KEY
        return False


@register(OURS)
def processes_fit_their_memory(**_: Any) -> list[CheckMessage]:
    """With less than a process takes at rest it would trim and refuse all the time."""
    if settings.MEMORY_LIMIT_BYTES >= MIN_MEMORY_BYTES:
        return []
    least = MIN_MEMORY_BYTES // 2**20
    return [Error(f"AUTOFORGE_MEMORY_LIMIT_MB must be at least {least}: a process needs as much.")]


@register(OURS)
def bodies_can_arrive(**_: Any) -> list[CheckMessage]:
    """Without a place or a lowest rate every larger body would be refused."""
    bounds = {"HTTP_BODIES": settings.HTTP_BODIES, "HTTP_BODY_KB_PER_S": settings.HTTP_BODY_BYTES_PER_S}
    return [
        Error(f"AUTOFORGE_{name} must be at least 1: larger request bodies could not arrive.")
        for name, bound in bounds.items()
        if bound < 1
    ]


@register(OURS)
def executor_is_known(**_: Any) -> list[CheckMessage]:
    """AUTOFORGE_EXECUTOR is one that exists, and Celery has a broker."""
    if settings.EXECUTOR not in ("inprocess", "celery"):
        return [Error(f"AUTOFORGE_EXECUTOR is {settings.EXECUTOR!r}: it must be 'inprocess' or 'celery'.")]
    if settings.EXECUTOR == "celery" and not settings.REDIS_URL:
        return [Error("AUTOFORGE_EXECUTOR is 'celery', which needs REDIS_URL.")]
    return []


@register(OURS)
def middleware_suits_both_handlers(**_: Any) -> list[CheckMessage]:
    """Every middleware has the two halves that sync and async requests run it by."""
    return [
        Error(f"MIDDLEWARE has {path}, which is no plain MiddlewareMixin: see autoforge.http.async_handler.")
        for path in settings.MIDDLEWARE
        if not is_two_halves(import_string(path))
    ]


@register(OURS)
def rate_limits_name_what_exists(**_: Any) -> list[CheckMessage]:
    """A limit of a role or route that does not exist would hold for nobody."""
    routes = {name for name in get_resolver().reverse_dict if isinstance(name, str)}
    known = {"ROLE": set(Role.values), "ROUTE": routes}
    return [
        Error(f"AUTOFORGE_RATE_LIMITS_BY_{kind} has {name}={limit}: {sentence}.")
        for kind, names in known.items()
        for name, limit in getattr(settings, f"RATE_LIMITS_BY_{kind}").items()
        for sentence in _limit_mistakes(name, limit, names)
    ]


def _limit_mistakes(name: str, limit: int, names: Collection[str]) -> Iterator[str]:
    if name not in names:
        yield f"there is no {name!r}, only {', '.join(sorted(names))}"
    if limit < 0:
        yield "a limit is a number of requests a minute, 0 for none"


@register(OURS)
def database_pool_is_ours(**_: Any) -> list[CheckMessage]:
    """A pooled database has options that the pool reads, and no second pool below it."""
    return [
        Error(f"DATABASES[{alias!r}]: {sentence}")
        for alias, database in settings.DATABASES.items()
        if database["ENGINE"] == "autoforge.db"
        for sentence in _pool_mistakes(database)
    ]


def _pool_mistakes(database: dict[str, Any]) -> Iterator[str]:
    options = database.get("POOL_OPTIONS", {})
    if database.get("OPTIONS", {}).get("pool"):
        yield "OPTIONS['pool'] is Django's own pool and cannot be combined with this one: remove it."
    if database.get("CONN_MAX_AGE", 0) != 0:
        yield "CONN_MAX_AGE must be 0, or no connection ever goes back to the pool."
    if unknown := sorted(set(options) - POOL_OPTIONS):
        yield f"POOL_OPTIONS has unknown keys {unknown}: it takes {sorted(POOL_OPTIONS)}."
    if options.get("POOL_SIZE", 1) < 1 or options.get("MAX_OVERFLOW", 0) < 0:
        yield "POOL_SIZE must be at least 1 and MAX_OVERFLOW at least 0: a pool has a bound."


@register(Tags.database)
def pools_fit_the_server(*, databases: Collection[str] | None = None, **_: Any) -> list[CheckMessage]:
    """All processes together can fill their pools without meeting "too many clients"."""
    messages = (
        _pool_overcommitment(alias)
        for alias in databases or ()
        if settings.DATABASES[alias]["ENGINE"] == "autoforge.db"
    )
    return [message for message in messages if message]


def _pool_overcommitment(alias: str) -> CheckMessage | None:
    options = settings.DATABASES[alias]["POOL_OPTIONS"]
    processes = settings.WEB_PROCESSES + settings.WORKER_PROCESSES
    wanted = processes * (options["POOL_SIZE"] + options["MAX_OVERFLOW"])
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
        )
        offered = cursor.fetchone()[0]
    if wanted <= offered:
        return None
    return checks.Warning(
        f"The pools of {processes} processes may open {wanted} connections to {alias!r}, which takes"
        f" {offered}: lower AUTOFORGE_DB_POOL_SIZE or AUTOFORGE_DB_POOL_MAX_OVERFLOW, or raise"
        " max_connections."
    )
