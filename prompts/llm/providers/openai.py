"""OpenAI chat completions, as every compatible server speaks them."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from prompts.llm.providers import http
from prompts.llm.providers.base import (
    Completion,
    Delta,
    ProviderError,
    Request,
    Transport,
    Usage,
    text_of,
)
from prompts.llm.providers.merging import merge_delta, without_index

DEFAULT_BASE_URL = "https://api.openai.com/v1"
TOP_LEVEL_FIELDS = ("system_fingerprint", "service_tier")
# Of a message; `choices` would be taken for the further ones of an answer.
_NOT_EXTRA = {"role", "content", "choices"}


class OpenAIProvider:
    """Every OpenAI-compatible server; parameters are passed on as they are."""

    async def base_url(self, request: Request) -> str:
        return request.endpoint.base_url or DEFAULT_BASE_URL

    async def complete(self, request: Request, transport: Transport) -> Completion:
        """One call without streaming. Raises ProviderError."""
        started = time.perf_counter()
        async with await self._post(request, transport, stream=False) as response:
            answer = await http.read_json(response, transport.max_bytes)
        if answer.get("error"):
            raise _stream_error(request, answer["error"])
        return _whole(request, answer, started)

    async def stream(
        self, request: Request, transport: Transport
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Pieces as they come, the completion last. Raises ProviderError."""
        answer = _Answer(request)
        async with (
            await self._post(request, transport, stream=True) as response,
            aclosing(http.events(response, transport.max_bytes)) as events,
        ):
            async for event in events:
                if event.data.startswith(b"[DONE]"):
                    break
                delta = answer.take(event.data)
                if delta is not None:
                    yield delta
        yield answer.completion()

    async def _post(self, request: Request, transport: Transport, *, stream: bool) -> Any:
        endpoint = request.endpoint
        body = {**request.params, "model": endpoint.model, "messages": request.messages}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        url = (await self.base_url(request)).rstrip("/") + "/chat/completions"
        return http.post(transport, request, url, headers, body)


class _Answer:
    """A streamed answer while it grows."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started = time.perf_counter()
        self._ttft_ms: float | None = None
        self._text: list[str] = []
        self._extra: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._model = request.endpoint.model
        self._usage = Usage()

    @http.follows_protocol
    def take(self, data: bytes) -> Delta | None:
        """What one chunk adds, if it adds anything. Raises ProviderError."""
        chunk = http.as_object(data)
        if chunk.get("error"):
            raise _stream_error(self._request, chunk["error"])
        if usage := chunk.get("usage"):
            self._usage = usage_of(usage)
        self._model = http.as_text(chunk.get("model")) or self._model
        extra = {name: chunk[name] for name in TOP_LEVEL_FIELDS if chunk.get(name) is not None}
        self._extra |= extra
        choices = chunk.get("choices")
        return self._choice(choices[0]) if choices else None

    def _choice(self, choice: dict[str, Any]) -> Delta | None:
        delta = choice.get("delta") or {}
        self._finish_reason = http.as_text(choice.get("finish_reason")) or self._finish_reason
        text = text_of(delta)
        extra = _further(delta, choice)
        if not text and not extra:
            return None
        if self._ttft_ms is None:
            self._ttft_ms = http.milliseconds_since(self._started)
        self._text.append(text)
        if extra:
            merge_delta(self._extra, extra)
        return Delta(text, extra or None)

    @http.follows_protocol
    def completion(self) -> Completion:
        """The answer, if it ended properly. Raises ProviderError."""
        if self._finish_reason is None:
            raise http.broken_stream(self._request)
        return Completion(
            text="".join(self._text),
            finish_reason=self._finish_reason,
            usage=self._usage,
            cost_usd=None,
            latency_ms=http.milliseconds_since(self._started),
            ttft_ms=self._ttft_ms,
            cached=False,
            model=self._model,
            extra=without_index(self._extra),
        )


def usage_of(usage: dict[str, Any]) -> Usage:
    """OpenAI's usage object."""
    inputs = usage.get("prompt_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=http.as_count(usage.get("prompt_tokens")),
        output_tokens=http.as_count(usage.get("completion_tokens")),
        cached_input_tokens=http.as_count(inputs.get("cached_tokens")),
        reasoning_tokens=http.as_count(outputs.get("reasoning_tokens")),
    )


@http.follows_protocol
def _whole(request: Request, answer: dict[str, Any], started: float) -> Completion:
    """The completion in a response that was not streamed; `choices` beyond the first go to extra."""
    choice, *others = answer["choices"]
    message = choice["message"]
    extra = _further(message, choice)
    extra |= {name: answer[name] for name in TOP_LEVEL_FIELDS if answer.get(name) is not None}
    if others:
        extra["choices"] = [_further_choice(other) for other in others]
    return Completion(
        text=text_of(message),
        finish_reason=http.as_text(choice.get("finish_reason")),
        usage=usage_of(answer.get("usage") or {}),
        cost_usd=None,
        latency_ms=http.milliseconds_since(started),
        ttft_ms=None,
        cached=False,
        model=http.as_text(answer.get("model")) or request.endpoint.model,
        extra=extra,
    )


def _further_choice(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice itself. Raises TypeError for one that has no message."""
    if not isinstance(choice["message"], dict):
        raise TypeError("expected a message")
    return choice


def _further(message: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    """Every field beside role and content that says something."""
    extra = {name: value for name, value in message.items() if name not in _NOT_EXTRA and value is not None}
    if choice.get("logprobs") is not None:
        extra["logprobs"] = choice["logprobs"]
    return extra


def _stream_error(request: Request, error: Any) -> ProviderError:
    """An error inside a successful response. Retryable unless it says that the request is wrong."""
    fields = error if isinstance(error, dict) else {"message": error}
    kind = f"{fields.get('code') or ''} {fields.get('type') or ''}"
    sentence = http.error_sentence(request, str(fields.get("message") or "the vendor reported an error"))
    if "content_filter" in kind:
        return ProviderError("content_filter", sentence, status=200)
    if "invalid" in kind or "context_length" in kind:
        return ProviderError("invalid_request", sentence, status=200)
    if "rate_limit" in kind or kind.startswith("429"):
        return ProviderError("rate_limited", sentence, status=200, is_retryable=True)
    return ProviderError("unavailable", sentence, status=200, is_retryable=True)
