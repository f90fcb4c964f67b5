"""Answers in OpenAI's shapes: a whole completion, and the chunks of a stream."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from prompts.llm.providers.base import Completion, Delta, Usage
from prompts.llm.providers.openai import TOP_LEVEL_FIELDS


class _Fields(NamedTuple):
    """Where the further fields of an answer belong."""

    message: dict[str, Any]
    logprobs: Any
    top: dict[str, Any]
    others: list[dict[str, Any]]  # choices beyond the first, as the vendor gave them

    @classmethod
    def of(cls, extra: dict[str, Any]) -> "_Fields":
        message = dict(extra)
        logprobs = message.pop("logprobs", None)
        others = message.pop("choices", [])
        top = {name: message.pop(name) for name in TOP_LEVEL_FIELDS if name in message}
        return cls(message, logprobs, top, others)


class Frame:
    """What all parts of one answer have in common."""

    def __init__(self, model: str, id: str) -> None:
        self._common = {
            "id": f"chatcmpl-{id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }

    def whole(self, completion: Completion) -> dict[str, Any]:
        """A `chat.completion`."""
        fields = _Fields.of(completion.extra)
        message = {"role": "assistant", "content": completion.text, "refusal": None} | fields.message
        if not completion.text and fields.message:
            message["content"] = None
        first = {
            "index": 0,
            "message": message,
            "logprobs": fields.logprobs,
            "finish_reason": completion.finish_reason,
        }
        choices = [first, *fields.others]
        frame = self._common | {"object": "chat.completion"} | fields.top
        return frame | {"choices": choices, "usage": usage_of(completion.usage)}

    def opening(self) -> dict[str, Any]:
        """The first chunk of a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def pieces(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """The chunks of a piece: one, and those of further choices that come whole."""
        fields = _Fields.of(delta.extra or {})
        text = {"content": delta.text} if delta.text else {}
        yield self._chunk(text | fields.message, logprobs=fields.logprobs) | fields.top
        for position, choice in enumerate(fields.others, start=1):
            at = {"index": choice.get("index", position)}
            message = {"role": "assistant"} | choice.get("message", {})
            yield self._chunk(message, logprobs=choice.get("logprobs"), **at)
            yield self._chunk({}, finish_reason=choice.get("finish_reason"), **at)

    def closing(self, completion: Completion, *, wants_usage: bool) -> Iterator[dict[str, Any]]:
        """The last chunks of a stream."""
        top = _Fields.of(completion.extra).top
        yield self._chunk({}, finish_reason=completion.finish_reason) | top
        if wants_usage:
            yield self._chunk({}) | top | {"choices": [], "usage": usage_of(completion.usage)}

    def _chunk(
        self, delta: dict[str, Any], *, index: int = 0, logprobs: Any = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._common | {"object": "chat.completion.chunk", "choices": [choice]}


def usage_of(usage: Usage) -> dict[str, Any] | None:
    """OpenAI's usage object; None where the provider did not count."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
    }
