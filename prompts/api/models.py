"""`/api/v1/models`: the language models that a project can call."""

import asyncio
import time
from http import HTTPStatus

from dmr import Path, Query, modify

from autoforge.api import AsyncProjectController, Body, ProjectController
from autoforge.db.threads import in_db_thread
from autoforge.pagination import Page, PageQuery, paginate
from prompts import services
from prompts.endpoint_schemas import CheckOut, EndpointOut, EndpointPatch, EndpointPath, NewEndpoint
from prompts.llm import client
from prompts.llm.providers.base import ProviderError, Request
from prompts.models import ModelEndpoint

CHECK_TIMEOUT_S = 30
CHECK_MAX_TOKENS = 16
_QUESTION = [{"role": "user", "content": "Reply with the word OK."}]


class ModelsController(ProjectController):
    """The project's model endpoints."""

    def get(self, parsed_query: Query[PageQuery]) -> Page[EndpointOut]:
        """A page by name."""
        endpoints = ModelEndpoint.objects.in_project(self.project)
        return paginate(endpoints, parsed_query, order=["name"], show=EndpointOut.of)

    def post(self, parsed_body: Body[NewEndpoint]) -> EndpointOut:
        """A new endpoint."""
        services.create_endpoint(self.project, name=parsed_body.name, **parsed_body.changes())
        return _shown(self, parsed_body.name)


class ModelController(ProjectController):
    """One model endpoint."""

    def get(self, parsed_path: Path[EndpointPath]) -> EndpointOut:
        """The endpoint, without its secret."""
        return _shown(self, parsed_path.name)

    def patch(self, parsed_path: Path[EndpointPath], parsed_body: Body[EndpointPatch]) -> EndpointOut:
        """Change the fields that are sent."""
        endpoint = ModelEndpoint.objects.in_project(self.project).get_or_404(parsed_path.name)
        services.change_endpoint(endpoint, **parsed_body.changes())
        return _shown(self, parsed_path.name)

    @modify(status_code=HTTPStatus.NO_CONTENT)
    def delete(self, parsed_path: Path[EndpointPath]) -> None:
        """Delete it with its secret."""
        services.delete_endpoint(ModelEndpoint.objects.in_project(self.project).get_or_404(parsed_path.name))


def _shown(controller: ProjectController, name: str) -> EndpointOut:
    return EndpointOut.of(ModelEndpoint.objects.in_project(controller.project).get_or_404(name))


class ModelCheckController(AsyncProjectController):
    """Whether an endpoint answers."""

    @modify(status_code=HTTPStatus.OK)
    async def post(self, parsed_path: Path[EndpointPath]) -> CheckOut:
        """One tiny real completion, past the cache; 200 whether it succeeds or not."""
        request = await in_db_thread(services.build_request)(
            self.project,
            messages=_QUESTION,
            model=parsed_path.name,
            params={"max_tokens": CHECK_MAX_TOKENS},
            cache="no-store",
        )
        return await _check(request)


async def _check(request: Request) -> CheckOut:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            completion = await client.complete(request)
    except ProviderError as error:
        return CheckOut(ok=False, latency_ms=_since(started), error=error.message, code=error.code)
    except TimeoutError:
        sentence = f"No answer within {CHECK_TIMEOUT_S} s."
        return CheckOut(ok=False, latency_ms=_since(started), error=sentence, code="timeout")
    return CheckOut(ok=True, latency_ms=completion.latency_ms, text=completion.text)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
