"""Django's request handling for async views: the view on the loop, middleware in two visits to a thread.

Django adapts each middleware by itself, with a hop between loop and thread for every method of each:
eighteen for the nine of this project. Ours have the two halves of MiddlewareMixin, so all first
halves run together, and all second halves. Where they only compute, for a request that brings an API
key, they run on the loop: a visit to a thread costs more than they do, most of all on a busy machine.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.exception import response_for_exception
from django.core.signals import request_started
from django.db import close_old_connections
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix, set_urlconf
from django.utils.deprecation import MiddlewareMixin
from django.utils.log import log_response
from django.utils.module_loading import import_string

from autoforge.http.answers import Answer, conclude
from autoforge.http.threads import Threads
from autoforge.middleware import brings_key

T = TypeVar("T")


class Visit:
    """A request on its way: how deep it came, and the view it met there."""

    def __init__(self, request: ASGIRequest) -> None:
        self.request = request
        self.depth = 0
        self.view: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}


class AsyncHandler(ASGIHandler):
    """The same middleware and views as SyncHandler, with the view awaited on the loop."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._middleware: list[Any] = []
        self.load_middleware(is_async=True)

    def load_middleware(self, is_async: bool = True) -> None:
        """Instances in the order of the settings, and their methods as Django lists them."""
        for path in settings.MIDDLEWARE:
            try:
                self._middleware.append(import_string(path)(_unreachable))
            except MiddlewareNotUsed:
                continue
        self._view_middleware = self._methods("process_view")
        self._exception_middleware = self._methods("process_exception")[::-1]
        self._template_response_middleware = self._methods("process_template_response")[::-1]

    def _methods(self, name: str) -> list[Any]:
        return [getattr(middleware, name) for middleware in self._middleware if hasattr(middleware, name)]

    async def respond(self, request: ASGIRequest) -> Answer | StreamingHttpResponse:
        """The answer to a request; what a view raises is in it."""
        set_script_prefix(request.script_name or "/")
        set_urlconf(settings.ROOT_URLCONF)
        visit, run = Visit(request), self.runner_of(request)
        response = await run(self._enter, visit)
        if response is None:
            response = await self._call_view(visit)
        return await run(self._leave, visit, response)

    def runner_of(self, request: ASGIRequest) -> Callable[..., Awaitable[Any]]:
        """Where what surrounds the view of `request` is run: on the loop, unless it may ask the database."""
        return _on_loop if brings_key(request) else self.visit_thread

    async def visit_thread(self, call: Callable[..., T], *args: Any) -> T:
        """`call(*args)` in a thread that gives its database connection back."""
        return await self._threads.run(_give_back_after, call, *args)

    async def _call_view(self, visit: Visit) -> HttpResponseBase:
        view = visit.view
        assert view is not None
        try:
            if not iscoroutinefunction(view):
                return await self.visit_thread(_call, view, visit)
            response = await _call(view, visit)
            self.check_response(response, view)
        except Exception as error:
            return await self.visit_thread(self._answer_error, visit.request, error)
        return response

    def _enter(self, visit: Visit) -> HttpResponseBase | None:
        """First halves, then the view's name; a response ends the way inwards."""
        _place(visit.request)
        request_started.send(sender=type(self), scope=visit.request.scope)
        try:
            return self._first_halves(visit) or self._resolve(visit)
        except Exception as error:
            return response_for_exception(visit.request, error)

    def _first_halves(self, visit: Visit) -> HttpResponseBase | None:
        for middleware in self._middleware:
            process_request = getattr(middleware, "process_request", None)
            response = process_request(visit.request) if process_request else None
            visit.depth += 1
            if response is not None:
                return response
        return None

    def _resolve(self, visit: Visit) -> HttpResponseBase | None:
        visit.view, visit.args, visit.kwargs = self.resolve_request(visit.request)
        for process_view in self._view_middleware:
            if response := process_view(visit.request, visit.view, visit.args, visit.kwargs):
                return response
        return None

    def _answer_error(self, request: ASGIRequest, error: Exception) -> HttpResponseBase:
        _place(request)
        try:
            # Django looks at the exception that is being handled.
            raise error
        except Exception:
            response = self.process_exception_by_middleware(error, request)
            return response or response_for_exception(request, error)

    def _leave(self, visit: Visit, response: Any) -> Answer | StreamingHttpResponse:
        """Second halves, from where the request came to; then the response is closed, or streams."""
        _place(visit.request)
        response = self._rendered(visit.request, response)
        for middleware in reversed(self._middleware[: visit.depth]):
            if hasattr(middleware, "process_response"):
                response = _second_half(middleware, visit.request, response)
        response._resource_closers.append(visit.request.close)
        _log_refusal(visit.request, response)
        return conclude(response, type(self))

    def _rendered(self, request: ASGIRequest, response: Any) -> HttpResponseBase:
        if not callable(getattr(response, "render", None)):
            return response
        try:
            for process_template_response in self._template_response_middleware:
                response = process_template_response(request, response)
            return response.render()
        except Exception as error:
            return self._answer_error(request, error)


def is_two_halves(middleware: Any) -> bool:
    """Whether `middleware` is a class of MiddlewareMixin's two halves, with nothing around them."""
    return (
        isinstance(middleware, type)
        and issubclass(middleware, MiddlewareMixin)
        and middleware.__call__ is MiddlewareMixin.__call__
        and middleware.__acall__ is MiddlewareMixin.__acall__
    )


def _unreachable(_request: ASGIRequest) -> HttpResponseBase:
    raise AssertionError("The halves of a middleware are called one by one.")


def _call(view: Callable[..., Any], visit: Visit) -> Any:
    return view(visit.request, *visit.args, **visit.kwargs)


async def _on_loop(call: Callable[..., T], *args: Any) -> T:
    return call(*args)


def _give_back_after(call: Callable[..., T], *args: Any) -> T:
    try:
        return call(*args)
    finally:
        close_old_connections()


def _place(request: ASGIRequest) -> None:
    """What `reverse()` needs to know in this thread."""
    set_script_prefix(request.script_name or "/")
    set_urlconf(settings.ROOT_URLCONF)


def _second_half(middleware: Any, request: ASGIRequest, response: Any) -> Any:
    try:
        return middleware.process_response(request, response)
    except Exception as error:
        return response_for_exception(request, error)


def _log_refusal(request: ASGIRequest, response: Any) -> None:
    if response.status_code >= 400:
        log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)
