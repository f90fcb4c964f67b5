"""`/v1/chat/completions`: whole or streamed, with fallbacks until somebody answers."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

import msgspec
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from prometheus_client import Counter, Histogram

from autoforge.idempotency import answer_once_async
from prompts.budget import on_budget
from prompts.compat.openai.calls import requests_of
from prompts.compat.openai.errors import error_body, of_provider
from prompts.compat.openai.frames import Frame
from prompts.compat.openai.schemas import ChatRequest, read_chat
from prompts.compat.openai.surface import Exchange, json_response, token_headers
from prompts.llm import client
from prompts.llm.limits import tokens_left
from prompts.llm.providers.base import Completion, Delta, ProviderError, Request

# Another model would refuse these as well.
_FAULTS_OF_THE_REQUEST = ("invalid_request", "content_filter")

fallbacks = Counter(
    "autoforge_gateway_fallbacks_total", "Calls handed to the next endpoint, by how one failed.", ["code"]
)
overhead = Histogram(
    "autoforge_gateway_overhead_seconds",
    "What the gateway itself took of a chat completion; of a stream, until the model was asked.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)

Requests = tuple[Request, ...]
Parts = AsyncGenerator[Delta | Completion, None]


async def complete_chat(exchange: Exchange) -> HttpResponseBase:
    """The answer or its stream, with X-Cache. Raises AppError."""
    body = read_chat(exchange.request.body)
    manner = body.manner(exchange.request.headers.get("Cache-Control", ""))
    requests = await requests_of(exchange.project, body, manner)
    if body.stream:
        return await _streamed(exchange, body, requests)
    return await answer_once_async(
        exchange.request, exchange.project, lambda: _whole(exchange, body, requests)
    )


class _Answered(NamedTuple):
    """An answer's first part, who gave it, and for how long others were waited for before."""

    request: Request
    first: Delta | Completion
    rest: Parts | None
    waited_ms: float


async def _ask(exchange: Exchange, requests: Requests, *, wants_parts: bool) -> _Answered:
    """The first of `requests` that is answered. Raises AppError in the words of the last that was not."""
    *others, last = requests
    began = time.perf_counter()
    for request in others:
        waited_ms = (time.perf_counter() - began) * 1000
        try:
            return await _begun(exchange, request, wants_parts, waited_ms)
        except ProviderError as error:
            if error.code in _FAULTS_OF_THE_REQUEST:
                raise of_provider(error) from error
            fallbacks.labels(error.code).inc()
    try:
        return await _begun(exchange, last, wants_parts, (time.perf_counter() - began) * 1000)
    except ProviderError as error:
        raise of_provider(error) from error


async def _begun(exchange: Exchange, request: Request, wants_parts: bool, waited_ms: float) -> _Answered:
    request, turn = on_budget(request, exchange.actor)
    if not wants_parts:
        return _Answered(request, await client.complete(request, turn=turn), None, waited_ms)
    parts = client.stream(request, turn=turn)
    return _Answered(request, await anext(parts), parts, waited_ms)


async def _whole(exchange: Exchange, body: ChatRequest, requests: Requests) -> HttpResponse:
    answered = await _ask(exchange, requests, wants_parts=False)
    completion = answered.first
    assert isinstance(completion, Completion)
    content = msgspec.json.encode(Frame(body.model, exchange.id).whole(completion))
    headers = await _headers(answered)
    if completion.cost_usd is not None:
        headers["x-autoforge-cost-usd"] = f"{completion.cost_usd:f}"
    waited_ms = answered.waited_ms
    if completion.stored_at is None:  # else it was looked up, which is our own work
        waited_ms += completion.latency_ms + completion.queued_ms
    return json_response(content, headers | _overhead(exchange.elapsed_ms - waited_ms))


async def _streamed(exchange: Exchange, body: ChatRequest, requests: Requests) -> StreamingHttpResponse:
    """The head goes out with the first part: until then a failure has a status, and a fallback."""
    before_ms = exchange.elapsed_ms
    answered = await _ask(exchange, requests, wants_parts=True)
    # Proxies must pass every event on at once.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    headers |= await _headers(answered) | _overhead(before_ms)
    events = _events(Frame(body.model, exchange.id), body, answered)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=headers)


async def _headers(answered: _Answered) -> dict[str, str]:
    """Who answered, whether from the cache and how long ago, and what is left of the endpoint's tokens."""
    first, endpoint = answered.first, answered.request.endpoint
    is_hit = first.cached if isinstance(first, Completion) else first.stored_at is not None
    headers = {"X-Cache": "HIT" if is_hit else "MISS", "x-autoforge-model": endpoint.name}
    if first.stored_at is not None:
        headers["Age"] = str(max(0, int(time.time() - first.stored_at)))
    if endpoint.limits.tokens_per_min and (left := await tokens_left(endpoint)):
        headers |= token_headers(endpoint.limits.tokens_per_min, left)
    return headers


def _overhead(own_ms: float) -> dict[str, str]:
    """What the gateway itself took, in milliseconds; of a stream, until the model was asked."""
    own_ms = max(0.0, own_ms)
    overhead.observe(own_ms / 1000)
    return {"x-autoforge-overhead-ms": f"{own_ms:.3f}"}


async def _events(frame: Frame, body: ChatRequest, answered: _Answered) -> AsyncIterator[bytes]:
    """Server-sent events. When the client leaves, this is closed, and with it the upstream call."""
    assert answered.rest is not None
    async with aclosing(answered.rest) as rest:
        yield _event(frame.opening()) + _encoded(frame, body, answered.first)
        try:
            async for part in rest:
                yield _encoded(frame, body, part)
        except ProviderError as error:
            yield _event(error_body(of_provider(error)))


def _encoded(frame: Frame, body: ChatRequest, part: Delta | Completion) -> bytes:
    """The events that a part becomes: sent together, they cost one write."""
    if isinstance(part, Completion):
        closing = frame.closing(part, wants_usage=body.wants_usage)
        return b"".join(map(_event, closing)) + b"data: [DONE]\n\n"
    return b"".join(map(_event, frame.pieces(part)))


def _event(data: object) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode(data)
