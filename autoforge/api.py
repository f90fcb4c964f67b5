"""What every REST view builds on: authentication, roles, strict bodies, problem+json."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Self

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response
from dmr import Controller
from dmr.endpoint import Endpoint
from dmr.metadata import EndpointMetadata
from dmr.openapi.objects import Reference, SecurityRequirement, SecurityScheme
from dmr.plugins.msgspec import BodyMsgspec as Body
from dmr.plugins.msgspec import MsgspecSerializer
from dmr.security import AsyncAuth, SyncAuth

from autoforge.auth import Actor, authenticate, remembered_actor
from autoforge.copies import Kept
from autoforge.db.threads import in_db_thread
from autoforge.errors import CHALLENGE, AppError, MethodNotAllowed, Problem, as_app_error, problem_response
from autoforge.models import Project, Role
from autoforge.negotiation import StrictEndpoint
from autoforge.throttling import Policy, admit, admit_async, policies_for

__all__ = ["AsyncProjectController", "Body", "ProjectController"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_CONDITIONS = frozenset({"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"})


class _ApiKeyScheme:
    """How the OpenAPI document names our authentication."""

    www_authenticate_challenge = CHALLENGE

    def security_schemes(
        self, metadata: EndpointMetadata, controller_cls: Any
    ) -> dict[str, SecurityScheme | Reference]:
        return {
            "api_key": SecurityScheme(
                type="http", scheme="bearer", description="An API key's secret, af_sk_…"
            ),
            "key_pair": SecurityScheme(type="http", scheme="basic", description="af_pk_… and af_sk_…"),
        }

    def security_requirements(
        self, metadata: EndpointMetadata, controller_cls: Any
    ) -> list[SecurityRequirement]:
        return [{"api_key": []}, {"key_pair": []}]


class ApiAuth(_ApiKeyScheme, SyncAuth):
    """Puts the Actor on the controller, or refuses."""

    def __call__(self, endpoint: Endpoint, controller: Any) -> Self:
        actor = authenticate(controller.request)
        controller.rate_headers = admit(_policies(actor, controller.request))
        controller.actor = _authorised(controller, actor)
        return self


class AsyncApiAuth(_ApiKeyScheme, AsyncAuth):
    """The same for async views; a key that this process does not remember is looked up in a thread."""

    async def __call__(self, endpoint: Endpoint, controller: Any) -> Self:
        request = controller.request
        actor = remembered_actor(request) or await in_db_thread(authenticate)(request)
        controller.rate_headers = await admit_async(_policies(actor, request))
        controller.actor = _authorised(controller, actor)
        return self


def _policies(actor: Actor, request: HttpRequest) -> tuple[Policy, ...]:
    route = request.resolver_match
    return policies_for(actor, (route.url_name if route else None) or "")


def _authorised(controller: Any, actor: Actor) -> Actor:
    actor.require(Role.VIEWER if controller.request.method in _SAFE_METHODS else controller.write_role)
    return actor


class _ProblemController(Controller[MsgspecSerializer]):
    """Every refusal leaves as problem+json; anything else is a bug and propagates."""

    is_abstract = True
    endpoint_cls = StrictEndpoint
    error_model = Problem
    write_role: ClassVar[Role] = Role.EDITOR
    actor: Actor
    rate_headers: Mapping[str, str] = {}

    @property
    def project(self) -> Project:
        """The project that this request may see."""
        return self.actor.project

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if _holds_nul(request):
            return self._maybe_wrap(problem_response(AppError("The address holds a NUL character.")))
        # HEAD is GET whose body the server leaves out (RFC 9110, 9.3.2).
        method = "GET" if request.method == "HEAD" else str(request.method)
        if endpoint := self.api_endpoints.get(method):
            return endpoint.func(self, *args, **kwargs)
        return self.handle_method_not_allowed(method)

    def with_rate_headers(self, response: HttpResponseBase) -> HttpResponseBase:
        """`response` with what the caller's limits have left."""
        for name, value in self.rate_headers.items():
            response.headers[name] = value
        return response

    @property
    def wants_fresh(self) -> bool:
        """Whether the caller asks to pass over copies (RFC 9111, 5.2.1.4)."""
        return "no-cache" in self.request.META.get("HTTP_CACHE_CONTROL", "")

    def to_conditional_response(self, answer: Any) -> HttpResponse:
        """`answer` with an ETag of its bytes, or 304 when If-None-Match says the caller has it."""
        encoded = self.to_response(answer, status_code=HTTPStatus.OK).content
        return self.kept_response(Kept.of(encoded))

    def kept_response(self, kept: Kept) -> HttpResponse:
        """An answer that is encoded already, or 304 when If-None-Match says the caller has it."""
        response = HttpResponse(kept.body, content_type="application/json", headers={"ETag": kept.etag})
        if _CONDITIONS.isdisjoint(self.request.META):
            return response
        return get_conditional_response(self.request, etag=kept.etag, response=response) or response

    def handle_method_not_allowed(self, method: str) -> HttpResponse:
        methods = set(self.api_endpoints)
        allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
        detail = f"{method} is not allowed here, only {allowed}."
        return self._maybe_wrap(problem_response(MethodNotAllowed(detail, headers={"Allow": allowed})))


def _holds_nul(request: HttpRequest) -> bool:
    """No text column can hold U+0000, and PostgreSQL fails on it."""
    return "\0" in request.path or "%00" in request.META.get("QUERY_STRING", "")


class ProjectController(_ProblemController):
    """Base of the synchronous REST views. `self.project` and `self.actor` are the caller's."""

    is_abstract = True
    auth = (ApiAuth(),)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return self.with_rate_headers(super().dispatch(request, *args, **kwargs))

    def handle_error(self, endpoint: Endpoint, controller: Any, exc: Exception) -> HttpResponse:
        return _answer(exc)


class AsyncProjectController(_ProblemController):
    """Base of the async REST views: those that wait for a model."""

    is_abstract = True
    auth = (AsyncApiAuth(),)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]  # as Django has it
        return self.with_rate_headers(await super().dispatch(request, *args, **kwargs))  # type: ignore[misc]  # a coroutine, by the views that it has

    async def handle_async_error(self, endpoint: Endpoint, controller: Any, exc: Exception) -> HttpResponse:
        return _answer(exc)


def _answer(exc: Exception) -> HttpResponse:
    error = as_app_error(exc)
    if error is None:
        raise exc
    return problem_response(error)
