"""Is this process alive, and can it do its work? For load balancers and supervisors."""

from collections.abc import Callable
from time import perf_counter

import msgspec
import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

_REDIS_TIMEOUT_S = 1.0


class Component(msgspec.Struct, omit_defaults=True):
    """One thing this process depends on."""

    is_ok: bool
    ms: float
    detail: str = ""


class Readiness(msgspec.Struct):
    """`status` is `ok`, or `unavailable` when a component is."""

    status: str
    components: dict[str, Component]


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers at all; depends on nothing."""
    return HttpResponse(b'{"status":"ok"}', content_type="application/json")


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """200 when every configured service answers, else 503 with the one that does not."""
    components = {"database": _probe(_ask_database)}
    if settings.REDIS_URL:
        components["redis"] = _probe(_ask_redis)
    is_ok = all(component.is_ok for component in components.values())
    body = Readiness("ok" if is_ok else "unavailable", components)
    return HttpResponse(
        msgspec.json.encode(body), status=200 if is_ok else 503, content_type="application/json"
    )


def _probe(ask: Callable[[], object]) -> Component:
    started = perf_counter()
    try:
        ask()
    except (DatabaseError, redis.RedisError) as error:
        # The class says enough; the text of a connection error may hold host and user.
        return Component(False, _ms_since(started), type(error).__name__)
    return Component(True, _ms_since(started))


def _ms_since(started: float) -> float:
    return round((perf_counter() - started) * 1000, 2)


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_redis() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
    ) as client:
        client.ping()
