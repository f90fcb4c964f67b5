"""Anthropic's Messages API, asked and answered in the words of OpenAI's."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from prompts.llm.providers import http
from prompts.llm.providers.anthropic_request import body_of
from prompts.llm.providers.base import (
    Completion,
    Delta,
    ErrorCode,
    ProviderError,
    Request,
    Transport,
    Usage,
)

DEFAULT_BASE_URL = "https://api.anthropic.com/v1"
API_VERSION = "2023-06-01"
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_ERRORS: dict[str, ErrorCode] = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "authentication",
    "permission_error": "authentication",
    "not_found_error": "not_found",
    "request_too_large": "invalid_request",
    "rate_limit_error": "rate_limited",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
}
_RETRYABLE: set[ErrorCode] = {"rate_limited", "overloaded", "timeout", "unavailable"}


class AnthropicProvider:
    """The Messages API of Anthropic and of servers that speak it."""

    async def complete(self, request: Request, transport: Transport) -> Completion:
        """One call without streaming. Raises ProviderError."""
        answer = _Answer(request)
        async with self._post(request, transport, stream=False) as response:
            message = await http.read_json(response, transport.max_bytes)
        answer.take_whole(message)
        return answer.completion()

    async def stream(
        self, request: Request, transport: Transport
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Pieces as they come, the completion last. Raises ProviderError."""
        answer = _Answer(request)
        async with (
            self._post(request, transport, stream=True) as response,
            aclosing(http.events(response, transport.max_bytes)) as events,
        ):
            async for event in events:
                delta = answer.take(http.as_object(event.data))
                if delta is not None:
                    yield delta
                if answer.is_stopped:
                    break
        yield answer.completion()

    def _post(self, request: Request, transport: Transport, *, stream: bool) -> Any:
        endpoint = request.endpoint
        body = body_of(request) | ({"stream": True} if stream else {})
        headers = {"anthropic-version": API_VERSION}
        if endpoint.api_key:
            headers["x-api-key"] = endpoint.api_key
        base_url = (endpoint.base_url or DEFAULT_BASE_URL).rstrip("/")
        # The vendor's own base URL is often given without its version.
        base_url = base_url if base_url.endswith("/v1") else base_url + "/v1"
        return http.post(transport, request, base_url + "/messages", headers, body)


class _Answer:
    """A message while it grows from events."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started = time.perf_counter()
        self._ttft_ms: float | None = None
        self._model = request.endpoint.model
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self.is_stopped = False

    @http.follows_protocol
    def take_whole(self, message: dict[str, Any]) -> None:
        """An answer that was not streamed. Raises ProviderError."""
        if message.get("error"):
            raise _error(self._request, message["error"])
        self.take({"type": "message_start", "message": message})
        for index, block in enumerate(message.get("content") or []):
            self.take({"type": "content_block_start", "index": index, "content_block": block})
        self.take({"type": "message_delta", "delta": message})
        self._ttft_ms, self.is_stopped = None, True

    @http.follows_protocol
    def take(self, event: dict[str, Any]) -> Delta | None:
        """What one event adds, if it adds anything. Raises ProviderError."""
        match event.get("type"):
            case "message_start":
                self._model = http.as_text(event["message"].get("model")) or self._model
                self._count(event["message"].get("usage"))
            case "content_block_start":
                return self._block(event["index"], event["content_block"])
            case "content_block_delta":
                return self._piece(event["index"], event["delta"])
            case "message_delta":
                self._stop_reason = http.as_text(event["delta"].get("stop_reason")) or self._stop_reason
                self._count(event.get("usage"))
            case "message_stop":
                self.is_stopped = True
            case "error":
                raise _error(self._request, event.get("error"))
        return None  # "ping" and whatever comes in later versions

    def _count(self, usage: dict[str, Any] | None) -> None:
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _block(self, index: int, block: dict[str, Any]) -> Delta | None:
        if block.get("type") != "tool_use":
            return self._piece(index, block)
        arguments = msgspec.json.encode(block["input"]).decode() if block.get("input") else ""
        call = {"index": len(self._tools), "id": block["id"], "type": "function"}
        call["function"] = {"name": block["name"], "arguments": arguments}
        self._tools[index] = msgspec.convert(call, dict) | {"function": dict(call["function"])}
        return self._delta(Delta(extra={"tool_calls": [call]}))

    def _piece(self, index: int, piece: dict[str, Any]) -> Delta | None:
        if text := http.as_text(piece.get("text")):
            self._text.append(text)
            return self._delta(Delta(text))
        if thinking := http.as_text(piece.get("thinking")):
            self._thinking.append(thinking)
            return self._delta(Delta(extra={"reasoning_content": thinking}))
        if arguments := piece.get("partial_json"):
            call = self._tools[index]
            call["function"]["arguments"] += arguments
            grown = {"index": call["index"], "function": {"arguments": arguments}}
            return self._delta(Delta(extra={"tool_calls": [grown]}))
        return None

    def _delta(self, delta: Delta) -> Delta:
        if self._ttft_ms is None:
            self._ttft_ms = http.milliseconds_since(self._started)
        return delta

    @http.follows_protocol
    def completion(self) -> Completion:
        """The answer, if it ended properly. Raises ProviderError."""
        if self._stop_reason is None or not self.is_stopped:
            raise http.broken_stream(self._request)
        return Completion(
            text="".join(self._text),
            finish_reason=FINISH_REASONS.get(self._stop_reason, self._stop_reason),
            usage=_usage_of(self._usage),
            cost_usd=None,
            latency_ms=http.milliseconds_since(self._started),
            ttft_ms=self._ttft_ms,
            cached=False,
            model=self._model,
            extra=self._extra(),
        )

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self._thinking:
            extra["reasoning_content"] = "".join(self._thinking)
        if self._tools:
            calls = [{k: v for k, v in call.items() if k != "index"} for call in self._tools.values()]
            extra["tool_calls"] = calls
        return extra


def _usage_of(usage: dict[str, Any]) -> Usage:
    """Anthropic counts cached tokens apart; ours include them."""
    cached = http.as_count(usage.get("cache_read_input_tokens"))
    written = http.as_count(usage.get("cache_creation_input_tokens"))
    uncached = http.as_count(usage.get("input_tokens"))
    return Usage(
        input_tokens=None if uncached is None else http.as_count(uncached + (cached or 0) + (written or 0)),
        output_tokens=http.as_count(usage.get("output_tokens")),
        cached_input_tokens=cached,
        cache_write_tokens=written,
    )


def _error(request: Request, error: Any) -> ProviderError:
    fields = error if isinstance(error, dict) else {}
    code = _ERRORS.get(str(fields.get("type")), "unavailable")
    sentence = http.error_sentence(request, str(fields.get("message") or "the vendor reported an error"))
    return ProviderError(code, sentence, status=200, is_retryable=code in _RETRYABLE)
