"""The words every provider speaks: endpoint, request, completion, error."""

from collections.abc import AsyncGenerator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    import aiohttp

ErrorCode = Literal[
    "authentication",
    "bad_response",
    "content_filter",
    "invalid_request",
    "not_found",
    "overloaded",
    "quota_exceeded",
    "rate_limited",
    "timeout",
    "unavailable",
]
CacheUse = Literal["use", "no-cache", "no-store"]

OWN_PARAMS = frozenset({"timeout_s", "stream", "stream_options"})
"""Parameters that say how a call is made, not what is asked: no vendor gets them as they are."""


class Prices(msgspec.Struct, frozen=True):
    """US dollars per million tokens."""

    input_per_mtok: Decimal
    output_per_mtok: Decimal


class Limits(msgspec.Struct, frozen=True):
    """What an endpoint allows, to all processes together; None is no limit."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    max_concurrency: int | None = None

    @property
    def is_any(self) -> bool:
        return bool(self.requests_per_min or self.tokens_per_min or self.max_concurrency)


class Endpoint(msgspec.Struct, frozen=True):
    """One model that can be called. The secret never shows in a representation.

    `project` is an id, not a name: who takes the name of a deleted project finds none of its answers.
    """

    project: str
    name: str
    provider: str
    model: str
    base_url: str | None = None
    api_key: str | None = None
    params: dict[str, Any] = {}
    prices: Prices | None = None
    limits: Limits = Limits()
    settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Endpoint({self.project}/{self.name}: {self.provider} {self.model})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class CacheTerms(msgspec.Struct, frozen=True):
    """Which stored answers will do and how long the new one is kept, in seconds; None: the cache's own bound.

    Answers are found only in the `namespace` in which they were stored.
    """

    max_age_s: float | None = None
    ttl_s: float | None = None
    namespace: str = ""


class Request(msgspec.Struct, frozen=True):
    """One question to one endpoint. `params` are already merged (see `merge_params`)."""

    endpoint: Endpoint
    messages: tuple[dict[str, Any], ...]
    params: dict[str, Any] = {}
    repeat: int = 0
    expected: str | None = None  # read only by `simulated` with output "expected"
    cache: CacheUse = "use"
    cache_terms: CacheTerms = CacheTerms()
    max_attempts: int | None = None  # None: settings.MODEL_MAX_ATTEMPTS
    payer: str = ""  # whose budget pays: only callers with the same one share a call


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens as the vendor counted them; `input_tokens` includes the cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A complete answer.

    `latency_ms` is the successful call alone; waiting for limits and between attempts is `queued_ms`.
    `ttft_ms` is None where the answer came in one piece. `extra` holds every further field (tool_calls,
    reasoning_content, logprobs, system_fingerprint, ...), so that a cache hit replays them. `stored_at`
    is the time.time() at which an answer from the cache was put there.
    """

    text: str
    finish_reason: str | None
    usage: Usage
    cost_usd: Decimal | None
    latency_ms: float
    ttft_ms: float | None
    cached: bool
    model: str
    attempts: int = 1
    saved_usd: Decimal | None = None
    extra: dict[str, Any] = {}
    queued_ms: float = 0.0
    stored_at: float | None = None


class Delta(msgspec.Struct, frozen=True):
    """One streamed piece: text, or fields as the vendor's delta carried them (tool_calls, ...)."""

    text: str = ""
    extra: dict[str, Any] | None = None
    stored_at: float | None = None  # of a piece from the cache, as Completion has it


class ProviderError(Exception):
    """A call that gave no answer. `message` is a sentence for the user, without the secret."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_retryable: bool = False,
    ) -> None:
        super().__init__(code, message, status, retry_after_s, is_retryable)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_retryable = is_retryable

    def __str__(self) -> str:
        return self.message


class Transport(msgspec.Struct, frozen=True):
    """How a provider reaches its vendor, and the bounds of one call (seconds, bytes)."""

    session: "aiohttp.ClientSession"
    timeout_s: float
    max_bytes: int


class Provider(Protocol):
    """Speaks one vendor's protocol."""

    def stream(self, request: Request, transport: Transport) -> AsyncGenerator[Delta | Completion, None]:
        """Yield pieces as they come, the completion last. Raises ProviderError."""
        ...

    async def complete(self, request: Request, transport: Transport) -> Completion:
        """The answer in one piece, by the vendor's cheaper call where it has one. Raises ProviderError."""
        ...


def merge_params(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Endpoint parameters < prompt config < call parameters; a None takes a parameter away."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return {name: value for name, value in merged.items() if value is not None}


def without_own_params(request: Request) -> Request:
    """The request with only the parameters that change the answer."""
    if OWN_PARAMS.isdisjoint(request.params):
        return request
    params = {name: value for name, value in request.params.items() if name not in OWN_PARAMS}
    return msgspec.structs.replace(request, params=params)


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
