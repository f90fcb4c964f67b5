"""The only way to a model: cache, single flight, limits, provider, price."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
from django.conf import settings

from prompts.llm import flights, observers
from prompts.llm.cache import key_of, response_cache
from prompts.llm.limits import Admission, admitted
from prompts.llm.per_loop import PerLoop
from prompts.llm.pricing import cost_usd, prepare
from prompts.llm.providers import addresses, provider_named
from prompts.llm.providers.base import (
    Completion,
    Delta,
    ProviderError,
    Request,
    Transport,
    without_own_params,
)
from prompts.llm.providers.http import bad_response, load_client, milliseconds_since, open_session
from prompts.llm.providers.merging import as_delta
from prompts.llm.retries import retry_delay_s

if TYPE_CHECKING:
    import aiohttp

MAX_TIMEOUT_S = 3_600.0

OnDelta = Callable[[str], Awaitable[None] | None]


class Turn(Protocol):
    """A caller's say in when a call is made: it is entered before and left when the answer is stored.

    An answer from the cache, or from a call that somebody else makes already, needs none.
    """

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def begin(self, *, for_others: bool) -> None:
        """The model is being asked now, with all limits kept; `for_others`: they wait for the same answer.

        Raises CancelledError if the caller has thought better of it, and nobody else waits.
        """

    def answered(self, completion: Completion) -> None:
        """The model's answer, before the turn is left; a turn that is left without one has failed."""


async def complete(
    request: Request, *, on_delta: OnDelta | None = None, turn: Turn | None = None
) -> Completion:
    """The answer; `on_delta` gets its text in pieces as they come. Raises ProviderError."""
    async with aclosing(_answer(request, wants_parts=on_delta is not None, turn=turn)) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                return part
            if on_delta is not None and part.text:
                waiting = on_delta(part.text)
                if inspect.isawaitable(waiting):
                    await waiting
    raise AssertionError("an answer ends with its completion")


def stream(request: Request, *, turn: Turn | None = None) -> AsyncGenerator[Delta | Completion, None]:
    """The answer in pieces, the completion last. Raises ProviderError.

    Closing the generator cancels the upstream call, unless others wait for the same answer.
    """
    return _answer(request, wants_parts=True, turn=turn)


def check_base_url(url: str) -> None:
    """Raises ValueError with a sentence if an endpoint may not live at `url`."""
    addresses.check_base_url(url, allow_private=settings.ALLOW_PRIVATE_ENDPOINTS)


async def close() -> None:
    """Close the running loop's HTTP sessions; a loop that ends properly does it by itself."""
    await _public_sessions.close()
    await _private_sessions.close()


async def _answer(
    request: Request, *, wants_parts: bool, turn: Turn | None = None
) -> AsyncGenerator[Delta | Completion, None]:
    """From the cache, else from a flight that may be shared."""
    key = key_of(request) if request.cache != "no-store" else None
    if request.cache == "use":
        hit = await _look_up(str(key), request.cache_terms.max_age_s)
        if hit is not None:
            observers.answer_saved(request, hit)
            for piece in _pieces(hit) if wants_parts else ():
                yield piece
            yield hit
            return
    call = partial(_call, request, key, turn)
    shared_key = f"{key}{request.payer}" if request.cache == "use" else None
    async with aclosing(flights.board.fly(shared_key, call, wants_parts=wants_parts)) as parts:
        async for part in parts:
            if isinstance(part, Completion) and part.cached:
                observers.answer_saved(request, part)
            yield part


async def _look_up(key: str, max_age_s: float | None) -> Completion | None:
    started = time.perf_counter()
    stored = await response_cache().get(key)
    if stored is not None and max_age_s is not None and time.time() - (stored.stored_at or 0) > max_age_s:
        stored = None
    observers.cache_read(hit=stored is not None)
    if stored is None:
        return None
    elapsed_ms = milliseconds_since(started)
    timings = {"latency_ms": elapsed_ms, "ttft_ms": elapsed_ms, "queued_ms": 0.0}
    return msgspec.structs.replace(flights.shared(stored), **timings)


def _pieces(completion: Completion) -> list[Delta]:
    """What a stream of the completion would have carried."""
    extra = as_delta(completion.extra) if completion.extra else None
    return [Delta(completion.text, extra, completion.stored_at)] if completion.text or extra else []


async def _call(request: Request, key: str | None, turn: Turn | None, flight: flights.Flight) -> Completion:
    """Call the model until it answers, price and store the answer. Raises ProviderError."""
    async with turn or nullcontext():
        completion = await _attempts(request, turn, flight)
        if turn is not None:
            turn.answered(completion)
        if key is not None and completion.finish_reason is not None:
            # Before anybody sees it: what was paid for survives whatever happens to who asked.
            stored = msgspec.structs.replace(completion, stored_at=time.time())
            with suppress(OverflowError):  # a number in `extra` that no cache can hold
                await response_cache().put(key, stored, request.cache_terms.ttl_s)
    return completion


async def _attempts(request: Request, turn: Turn | None, flight: flights.Flight) -> Completion:
    await prepare(request.endpoint)
    await load_client()
    began, attempt = time.perf_counter(), 0
    while True:
        attempt += 1
        try:
            async with admitted(request) as admission:
                queued_ms = milliseconds_since(began)
                if turn is not None:
                    turn.begin(for_others=flight.is_shared)
                answered = await _observed(request, flight, admission)
        except ProviderError as error:
            delay_s = retry_delay_s(error, attempt, request.max_attempts)
            if delay_s is None or not flight.restart():
                raise
            await asyncio.sleep(delay_s)
            continue
        return msgspec.structs.replace(answered, attempts=attempt, queued_ms=queued_ms)


async def _observed(request: Request, flight: flights.Flight, admission: Admission) -> Completion:
    """One attempt, with its price; observers and limits learn how it ended."""
    admission.start()
    started = time.perf_counter()
    try:
        completion = await _attempt(request, flight)
    except ProviderError as error:
        admission.ended(error)
        observers.call_ended(request, error, time.perf_counter() - started)
        raise
    cost = cost_usd(request.endpoint, completion.usage)
    priced = msgspec.structs.replace(completion, cost_usd=cost)
    admission.ended(priced)
    observers.call_ended(request, priced, time.perf_counter() - started)
    return priced


async def _attempt(request: Request, flight: flights.Flight) -> Completion:
    provider = provider_named(request.endpoint.provider)
    request, transport = _prepared(request)
    if not _is_streamable(request):
        completion = await provider.complete(request, transport)
        for piece in _pieces(completion):
            flight.publish(piece)
        return completion
    async with aclosing(provider.stream(request, transport)) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                return part
            flight.publish(part)
    raise bad_response("has no end")


def _is_streamable(request: Request) -> bool:
    """Streaming tells the time to the first token, so it is the rule; `settings.stream` turns it off."""
    return request.endpoint.settings.get("stream") is not False and request.params.get("n") in (None, 1)


def _prepared(request: Request) -> tuple[Request, Transport]:
    """The request without the parameters that are ours, and its transport."""
    timeout_s = request.params.get("timeout_s", settings.MODEL_TIMEOUT_S)
    if not isinstance(timeout_s, int | float) or timeout_s <= 0:
        raise ProviderError("invalid_request", "timeout_s must be a number of seconds above 0.")
    request = without_own_params(request)
    is_private = settings.ALLOW_PRIVATE_ENDPOINTS or request.endpoint.provider == "local"
    sessions = _private_sessions if is_private else _public_sessions
    bounded_s = min(timeout_s, MAX_TIMEOUT_S)
    return request, Transport(sessions.get(), bounded_s, settings.MODEL_MAX_OUTPUT_BYTES)


async def _close_session(session: aiohttp.ClientSession) -> None:
    await session.close()


_public_sessions: PerLoop[aiohttp.ClientSession] = PerLoop(
    partial(open_session, allow_private=False), _close_session
)
_private_sessions: PerLoop[aiohttp.ClientSession] = PerLoop(
    partial(open_session, allow_private=True), _close_session
)
