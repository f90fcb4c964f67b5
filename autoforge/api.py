"""What every REST view builds on: authentication, roles, strict bodies, problem+json."""

from typing import Any, ClassVar, Self

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from dmr import Controller
from dmr.endpoint import Endpoint
from dmr.metadata import EndpointMetadata
from dmr.openapi.objects import SecurityRequirement, SecurityScheme
from dmr.plugins.msgspec import BodyMsgspec as Body
from dmr.plugins.msgspec import MsgspecSerializer
from dmr.security import AsyncAuth, SyncAuth

from autoforge.auth import Actor, authenticate
from autoforge.errors import AppError, Problem, as_app_error, problem_response
from autoforge.models import Project, Role

__all__ = ["AsyncProjectController", "Body", "ProjectController"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class _ApiKeyScheme:
    """How the OpenAPI document names our authentication."""

    www_authenticate_challenge = 'Bearer realm="autoforge"'

    def security_schemes(self, metadata: EndpointMetadata, controller_cls: Any) -> dict[str, SecurityScheme]:
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
        controller.actor = _authorised(controller)
        return self


class AsyncApiAuth(_ApiKeyScheme, AsyncAuth):
    """The same for async views; the lookup runs in a thread."""

    async def __call__(self, endpoint: Endpoint, controller: Any) -> Self:
        controller.actor = await sync_to_async(_authorised, thread_sensitive=False)(controller)
        return self


def _authorised(controller: Any) -> Actor:
    request: HttpRequest = controller.request
    actor = authenticate(request)
    actor.require(Role.VIEWER if request.method in _SAFE_METHODS else controller.write_role)
    return actor


class _ProblemController(Controller[MsgspecSerializer]):
    """Every refusal leaves as problem+json; anything else is a bug and propagates."""

    is_abstract = True
    error_model = Problem
    write_role: ClassVar[Role] = Role.EDITOR
    actor: Actor

    @property
    def project(self) -> Project:
        """The project that this request may see."""
        return self.actor.project

    def handle_method_not_allowed(self, method: str) -> HttpResponse:
        allowed = ", ".join(sorted(self.api_endpoints))
        error = _MethodNotAllowed(
            f"{method} is not allowed here, only {allowed}.", headers={"Allow": allowed}
        )
        return self._maybe_wrap(problem_response(error))


class _MethodNotAllowed(AppError):
    status, code = 405, "method_not_allowed"


class ProjectController(_ProblemController):
    """Base of the synchronous REST views. `self.project` and `self.actor` are the caller's."""

    is_abstract = True
    auth = (ApiAuth(),)

    def handle_error(self, endpoint: Endpoint, controller: Any, exc: Exception) -> HttpResponse:
        return _answer(exc)


class AsyncProjectController(_ProblemController):
    """Base of the async REST views: those that wait for a model."""

    is_abstract = True
    auth = (AsyncApiAuth(),)

    async def handle_async_error(self, endpoint: Endpoint, controller: Any, exc: Exception) -> HttpResponse:
        return _answer(exc)


def _answer(exc: Exception) -> HttpResponse:
    error = as_app_error(exc)
    if error is None:
        raise exc
    return problem_response(error)
