"""How long requests take and how they end, for Prometheus. `view` is a route's name, never an address."""

from functools import cache
from time import perf_counter
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from prometheus_client import Counter, Gauge, Histogram

from autoforge.http.asgi import Scope

# The bucket at 0.2 s is the promise; those from 30 s on are for views that wait for a model.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 120)
NO_VIEW = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ARRIVED, _HANDLER = "autoforge.arrived_at", "autoforge.handler"

request_seconds = Histogram(
    "autoforge_http_request_seconds",
    "From the arrival of a whole request, over the wait for a thread, to its answer or the head of a stream. "
    "handler=async: the view waits for a model.",
    ["view", "method", "handler"],
    buckets=BUCKETS_S,
)
responses = Counter("autoforge_http_responses_total", "Answers by status.", ["view", "method", "status"])
clients_left = Counter("autoforge_http_clients_left_total", "Clients that did not wait for their answer.")
in_flight = Gauge(
    "autoforge_http_requests_in_flight", "Requests that are being answered.", multiprocess_mode="livesum"
)


def arrived(scope: Scope, *, waits_for_model: bool) -> None:
    """To be called when the body is there: from now on the time is ours."""
    scope[_ARRIVED] = perf_counter()
    scope[_HANDLER] = "async" if waits_for_model else "sync"


def refused(method: str, status: int) -> None:
    """Count an answer that no view gave, and no middleware saw."""
    _responses_of(NO_VIEW, _method(method), status).inc()


class RequestMetrics(MiddlewareMixin):
    """The outermost middleware: it sees every answer, and the view that gave it."""

    def process_request(self, request: HttpRequest) -> None:
        scope: Any = getattr(request, "scope", None) or {}
        request._arrived = scope.get(_ARRIVED) or perf_counter(), scope.get(_HANDLER, "sync")  # type: ignore[attr-defined]  # ours

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        arrived_at, handler = request._arrived  # type: ignore[attr-defined]  # ours
        match = request.resolver_match
        view, method = (match and match.view_name) or NO_VIEW, _method(request.method)
        _seconds_of(view, method, handler).observe(perf_counter() - arrived_at)
        _responses_of(view, method, response.status_code).inc()
        return response


def _method(method: str | None) -> str:
    """Anybody can invent methods."""
    return method if method in _METHODS else "other"


@cache
def _seconds_of(view: str, method: str, handler: str) -> Any:
    return request_seconds.labels(view, method, handler)


@cache
def _responses_of(view: str, method: str, status: int) -> Any:
    return responses.labels(view, method, str(status))
