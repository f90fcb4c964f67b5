"""What every route of the surface shares: keys, limits, methods, roles, errors, headers."""

import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from autoforge.auth import Actor, authenticate, remembered_actor
from autoforge.db.threads import in_db_thread
from autoforge.errors import MethodNotAllowed, as_app_error
from autoforge.models import Project, Role
from autoforge.throttling import Quota, headers_of, policies_for, refusal, throttle
from prompts.compat.openai.errors import error_response, new_id
from prompts.llm.ledger import Left


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was let in, and by whom it comes."""

    request: HttpRequest
    actor: Actor
    id: str
    started: float  # time.perf_counter()

    @property
    def project(self) -> Project:
        return self.actor.project

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started) * 1000


Handler = Callable[..., Awaitable[HttpResponseBase]]
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def answers(**handlers: Handler) -> View:
    """A view from a handler for each method; what they raise leaves in OpenAI's form.

    GET needs the role viewer, POST the role editor: it makes others work, and costs money.
    """

    async def view(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        id = new_id()
        headers = {"x-request-id": f"req_{id}"}
        response: HttpResponseBase
        try:
            exchange = await _let_in(request, id, headers)
            response = await _answer(exchange, handlers, kwargs)
        except Exception as exc:
            error = as_app_error(exc)
            if error is None:
                raise
            response = error_response(error)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    # Who sends a session's cookie is asked for its token by `authenticate`.
    view.csrf_exempt = True  # type: ignore[attr-defined]  # read by Django's middleware
    return view


async def _answer(
    exchange: Exchange, handlers: dict[str, Handler], kwargs: dict[str, Any]
) -> HttpResponseBase:
    method = str(exchange.request.method).replace("HEAD", "GET")
    if (handler := handlers.get(method)) is None:
        allowed = ", ".join(sorted({*handlers, "HEAD"} if "GET" in handlers else handlers))
        raise MethodNotAllowed(f"{method} is not allowed here, only {allowed}.", headers={"Allow": allowed})
    exchange.actor.require(Role.VIEWER if method == "GET" else Role.EDITOR)
    return await handler(exchange, **kwargs)


async def _let_in(request: HttpRequest, id: str, headers: dict[str, str]) -> Exchange:
    """Authenticate and count the request; `headers` learn what is left. Raises AppError."""
    started = time.perf_counter()
    actor = remembered_actor(request) or await in_db_thread(authenticate)(request)
    route = request.resolver_match.url_name if request.resolver_match else None
    quotas: list[Quota] = []
    for policy in policies_for(actor, route or ""):
        quota = throttle.spend(policy) or await in_db_thread(throttle.ask)(policy)
        quotas.append(quota)
        headers |= headers_of(quotas) | _openai_headers(quotas)
        if quota.wait_s is not None:
            raise refusal(quota)
    return Exchange(request, actor, id, started)


def _openai_headers(quotas: list[Quota]) -> dict[str, str]:
    """The limit that is closest, as OpenAI tells it."""
    closest = min(quotas, key=lambda quota: quota.left)
    return {
        "x-ratelimit-limit-requests": str(closest.policy.per_min),
        "x-ratelimit-remaining-requests": str(closest.left),
        "x-ratelimit-reset-requests": f"{math.ceil(closest.resets_s)}s",
    }


def token_headers(per_min: int, left: Left) -> dict[str, str]:
    """What an endpoint may still answer within this minute."""
    return {
        "x-ratelimit-limit-tokens": str(per_min),
        "x-ratelimit-remaining-tokens": str(left.tokens),
        "x-ratelimit-reset-tokens": f"{math.ceil(left.resets_s)}s",
    }


def json_response(content: bytes, headers: dict[str, str] | None = None) -> HttpResponse:
    """An answer that is encoded already."""
    return HttpResponse(content, content_type="application/json", headers=headers or {})
