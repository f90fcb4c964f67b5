"""Admission of a call: the endpoint's limits, and what its vendor bears right now."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from prompts.llm.adaptive import Gate
from prompts.llm.gates import gate_of
from prompts.llm.ledger import Left, QueueFullError, Reservation, ledger
from prompts.llm.pricing import estimate_tokens
from prompts.llm.providers.base import Completion, Endpoint, ProviderError, Request, Usage

MAX_QUEUE_S = 3_600.0
PLACE_POLL_S = 0.05
_OVERLOADS = {"rate_limited", "overloaded"}


class Admission:
    """A call that may be made now; it is told how the call ended."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._started = time.monotonic()
        self.is_called = False
        self.usage: Usage | None = None

    def start(self) -> None:
        """The call is being made."""
        self._started, self.is_called = time.monotonic(), True

    def ended(self, outcome: Completion | ProviderError) -> None:
        """Settle the tokens and adapt the concurrency."""
        if isinstance(outcome, Completion):
            self.usage = outcome.usage
            self._gate.succeeded()
        elif outcome.code in _OVERLOADS:
            self._gate.overloaded(self._started)


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[Admission]:
    """Wait until the request may be made, at most MAX_QUEUE_S. Raises ProviderError (rate_limited)."""
    endpoint = request.endpoint
    gate = gate_of(endpoint)
    deadline = time.monotonic() + MAX_QUEUE_S
    await _enter(gate, endpoint)
    admission = Admission(gate)
    try:
        if not endpoint.limits.is_any:
            yield admission
            return
        held = await _reserve(request, deadline)
        try:
            await asyncio.sleep(held.wait_s)
            yield admission
        finally:
            # A call that was cancelled settles too, else its place is lost until its lease ends.
            await _to_its_end(_settle(endpoint, held, admission))
    finally:
        gate.leave()


async def _enter(gate: Gate, endpoint: Endpoint) -> None:
    try:
        async with asyncio.timeout(MAX_QUEUE_S):
            await gate.enter(endpoint.limits.max_concurrency)
    except TimeoutError as error:
        raise _queue_full(endpoint) from error


async def _reserve(request: Request, deadline: float) -> Reservation:
    tokens = (
        estimate_tokens(request.messages, request.params) if request.endpoint.limits.tokens_per_min else 0
    )
    while (left_s := deadline - time.monotonic()) > 0:
        reserving = asyncio.ensure_future(ledger().reserve(request.endpoint, tokens, left_s))
        try:
            held = await asyncio.shield(reserving)
        except QueueFullError:
            break
        except asyncio.CancelledError:
            reserving.add_done_callback(partial(_give_back, request.endpoint))
            raise
        if held is not None:
            return held
        await asyncio.sleep(PLACE_POLL_S * random.uniform(0.5, 1.5))
    raise _queue_full(request.endpoint)


def _give_back(endpoint: Endpoint, reserving: asyncio.Future[Reservation | None]) -> None:
    """What was reserved for a caller that left meanwhile."""
    if not reserving.cancelled() and not reserving.exception() and (held := reserving.result()):
        giving = asyncio.ensure_future(ledger().settle(endpoint, held, 0, is_called=False))
        _giving_back.add(giving)
        giving.add_done_callback(_giving_back.discard)


_giving_back: set[asyncio.Future[None]] = set()
"""Keeps the tasks from being collected before they are done."""


async def _settle(endpoint: Endpoint, held: Reservation, admission: Admission) -> None:
    total = admission.usage.total_tokens if admission.usage else None
    used = held.tokens if total is None else total
    is_called = admission.is_called
    await ledger().settle(endpoint, held, used if is_called else 0, is_called=is_called)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work`, however often this task is cancelled meanwhile; it learns of that afterwards."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


async def tokens_left(endpoint: Endpoint) -> Left | None:
    """What is left of the endpoint's tokens per minute; None without such a limit, or while nobody knows."""
    return await ledger().tokens_left(endpoint) if endpoint.limits.tokens_per_min else None


def _queue_full(endpoint: Endpoint) -> ProviderError:
    sentence = f"{endpoint.name} has no free place within {MAX_QUEUE_S:g} s: its limits are reached."
    return ProviderError("rate_limited", sentence)
