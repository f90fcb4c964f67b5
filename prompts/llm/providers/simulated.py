"""A model made of settings: deterministic, for load tests and demonstrations."""

import asyncio
import hashlib
import random
import re
import threading
import time
from collections.abc import AsyncGenerator

import msgspec

from prompts.llm.providers.base import (
    Completion,
    Delta,
    ProviderError,
    Request,
    Transport,
    Usage,
    text_of,
)
from prompts.llm.providers.http import milliseconds_since

RATE_LIMIT_RETRY_AFTER_S = 0.05
MAX_COUNTED = 1_000  # endpoints whose calls are counted; of more, the longest unused begins anew
_TOKENS = re.compile(r"\s*\S+|\s+$")


class SimulationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`Endpoint.settings` of a simulated model.

    The first token comes after latency_ms ± jitter_ms (uniform), the others at tokens_per_s (None: at
    once). `error_rate` of all distinct requests fail, always the same ones, so they are not retried.
    Every `rate_limit_every`-th call of this process is refused with 429. `output` is "echo" (the last
    message), "expected" (the case's expectation, where there is none the echo) or the text itself.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    tokens_per_s: float | None = None
    error_rate: float = 0.0
    rate_limit_every: int | None = None
    output: str = "echo"


class SimulatedProvider:
    """Answers by the hash of the request: the same question has the same text, latency and failure."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    async def complete(self, request: Request, transport: Transport) -> Completion:
        """The completion alone, after the time that streaming it takes. Raises ProviderError."""
        async for part in self.stream(request, transport):
            if isinstance(part, Completion):
                return part
        raise AssertionError("a stream ends with its completion")

    async def stream(
        self, request: Request, transport: Transport
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Tokens when they are due, the completion last. Raises ProviderError."""
        started = time.perf_counter()
        settings = _settings_of(request)
        self._count_call(request, settings)
        chance = _chance_of(request)
        is_failing = chance.random() < settings.error_rate
        first_s = max(0.0, settings.latency_ms + chance.uniform(-1, 1) * settings.jitter_ms) / 1000
        tokens, finish_reason = _tokens_of(request, settings)
        token_s = 1 / settings.tokens_per_s if settings.tokens_per_s else 0.0
        deadline = started + transport.timeout_s
        await _sleep_until(started + first_s, deadline, request)
        if is_failing:
            raise ProviderError(
                "unavailable", f"{request.endpoint.name} failed, as it is set to.", status=500
            )
        ttft_ms = milliseconds_since(started)
        for position, piece in enumerate(tokens if token_s else ["".join(tokens)]):
            await _sleep_until(started + first_s + position * token_s, deadline, request)
            yield Delta(piece)
        yield Completion(
            text="".join(tokens),
            finish_reason=finish_reason,
            usage=Usage(sum(len(_TOKENS.findall(text_of(m))) for m in request.messages), len(tokens)),
            cost_usd=None,
            latency_ms=milliseconds_since(started),
            ttft_ms=ttft_ms,
            cached=False,
            model=request.endpoint.model,
        )

    def _count_call(self, request: Request, settings: SimulationSettings) -> None:
        """Raises ProviderError for every `rate_limit_every`-th call."""
        if not settings.rate_limit_every:
            return
        name = (request.endpoint.project, request.endpoint.name)
        with self._lock:
            calls = self._calls[name] = self._calls.pop(name, 0) + 1
            if len(self._calls) > MAX_COUNTED:
                del self._calls[next(iter(self._calls))]
        if calls % settings.rate_limit_every == 0:
            sentence = f"{request.endpoint.name} refuses every {settings.rate_limit_every}th call."
            raise ProviderError("rate_limited", sentence, 429, RATE_LIMIT_RETRY_AFTER_S, is_retryable=True)


def _settings_of(request: Request) -> SimulationSettings:
    try:
        return msgspec.convert(request.endpoint.settings, SimulationSettings)
    except msgspec.ValidationError as error:
        raise ProviderError("invalid_request", f"{request.endpoint.name}'s settings: {error}.") from error


def _chance_of(request: Request) -> random.Random:
    identity = (request.endpoint.model, request.messages, request.params, request.repeat)
    return random.Random(hashlib.sha256(msgspec.json.encode(identity, order="sorted")).digest())


def _tokens_of(request: Request, settings: SimulationSettings) -> tuple[list[str], str]:
    """(tokens, finish reason), cut at max_tokens."""
    text = settings.output
    if text == "expected" and request.expected is not None:
        text = request.expected
    elif text in ("echo", "expected"):
        text = text_of(request.messages[-1]) if request.messages else ""
    tokens: list[str] = _TOKENS.findall(text)
    limit = _max_tokens_of(request)
    if limit and len(tokens) > limit:
        return tokens[:limit], "length"
    return tokens, "stop"


def _max_tokens_of(request: Request) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = request.params.get(name)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ProviderError("invalid_request", f"{name} must be a whole number above 0.", status=400)
        if limit:
            return int(limit)
    return None


async def _sleep_until(due: float, deadline: float, request: Request) -> None:
    """Sleep until a `time.perf_counter()`, at most until the deadline. Raises ProviderError (timeout)."""
    delay_s = min(due, deadline) - time.perf_counter()
    if delay_s > 0:
        await asyncio.sleep(delay_s)
    if due > deadline:
        sentence = f"{request.endpoint.name} gave no complete answer in time."
        raise ProviderError("timeout", sentence, is_retryable=True)
