"""`/api/v1/completions`: call a model, whole or streamed as server-sent events."""

import math
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import msgspec
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from dmr import ResponseSpec, validate

from autoforge.api import AsyncProjectController, Body
from autoforge.auth import Actor
from autoforge.db.threads import in_db_thread
from autoforge.errors import AppError, Problem, UpstreamBusy, UpstreamFailed, problem_of
from autoforge.idempotency import answer_once_async
from prompts.budget import on_budget
from prompts.call_schemas import CompletionOut, NewCompletion, cache_use
from prompts.llm import client
from prompts.llm.providers.base import Completion, ProviderError
from prompts.services import Call, prepare_call

_BUSY = ("rate_limited", "overloaded")


class CompletionsController(AsyncProjectController):
    """One call of a model. It costs money, so it needs the role editor."""

    @validate(
        ResponseSpec(CompletionOut, status_code=HTTPStatus.OK),
        ResponseSpec(Problem, status_code=HTTPStatus.BAD_GATEWAY, description="The provider failed."),
    )
    async def post(self, parsed_body: Body[NewCompletion]) -> HttpResponseBase:
        """The answer, with X-Cache: HIT or MISS; with `stream`, events token*, then completed or failed.

        Honours Idempotency-Key (not with `stream`) and Cache-Control: no-cache or no-store.
        """
        call = await self._prepare(parsed_body)
        if parsed_body.stream:
            return _stream(call, self.actor)
        return await answer_once_async(self.request, self.project, lambda: self._complete(call))

    async def _prepare(self, body: NewCompletion) -> Call:
        return await in_db_thread(prepare_call)(
            self.project,
            prompt=body.prompt,
            messages=body.sent_messages,
            model=body.model,
            vars=body.vars,
            params=body.params,
            cache=cache_use(self.request.headers.get("Cache-Control", "")),
        )

    async def _complete(self, call: Call) -> HttpResponse:
        try:
            request, turn = on_budget(call.request, self.actor)
            completion = await client.complete(request, turn=turn)
        except ProviderError as error:
            raise as_upstream_error(error) from error
        headers = {"X-Cache": "HIT" if completion.cached else "MISS"}
        answer = CompletionOut.of(_new_id(), call, completion)
        return self.to_response(answer, status_code=HTTPStatus.OK, headers=headers)


def as_upstream_error(error: ProviderError) -> UpstreamFailed:
    """502; or 503 when the provider refuses for load. `code` is the provider error's."""
    kind = UpstreamBusy if error.code in _BUSY else UpstreamFailed
    retry = {} if error.retry_after_s is None else {"Retry-After": str(math.ceil(error.retry_after_s))}
    return kind(error.message, headers=retry, code=error.code)


def _new_id() -> str:
    return f"cmpl_{uuid.uuid4().hex}"


def _stream(call: Call, actor: Actor) -> StreamingHttpResponse:
    # Proxies must pass every event on at once.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_events(call, actor), content_type="text/event-stream", headers=headers)


async def _events(call: Call, actor: Actor) -> AsyncIterator[bytes]:
    """Server-sent events. When the caller leaves, this is closed, and with it the upstream call."""
    request, turn = on_budget(call.request, actor)
    try:
        async with aclosing(client.stream(request, turn=turn)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    yield _event("completed", CompletionOut.of(_new_id(), call, part))
                elif part.text:
                    yield _event("token", {"text": part.text})
    except ProviderError as error:
        yield _event("failed", problem_of(as_upstream_error(error)))
    except AppError as refusal:
        yield _event("failed", problem_of(refusal))


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
