"""What the completion routes take and answer. Costs are JSON numbers, in US dollars."""

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from prompts.llm.providers.base import CacheUse, Completion
from prompts.schemas import Input
from prompts.services import Call, PromptChoice

MAX_MESSAGES = 2_000


class ChatMessage(Input, omit_defaults=True):
    """A message as it is sent; `content` is text, or parts as the vendor takes them."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


# What a conversation may be, however it comes.
Messages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]


class NewCompletion(Input):
    """Either `prompt` (a name, or {"name", "label"|"version"}) with `vars`, or `messages`."""

    prompt: str | PromptChoice | None = None
    messages: Messages | None = None
    model: str | None = None
    vars: dict[str, Any] = {}
    params: dict[str, Any] = {}
    stream: bool = False

    @property
    def sent_messages(self) -> list[dict[str, Any]] | None:
        """`messages` as they leave for the vendor."""
        return plain(self.messages)


def plain(messages: list[ChatMessage] | None) -> list[dict[str, Any]] | None:
    """`messages` as plain JSON, without what was left out."""
    return None if messages is None else msgspec.to_builtins(messages)


class PromptRef(msgspec.Struct):
    """The version that was rendered."""

    name: str
    version: int


class Tokens(msgspec.Struct):
    """Null where the provider did not count."""

    input: int | None
    output: int | None


class CompletionOut(msgspec.Struct, kw_only=True):
    """An answer. `saved_usd` is what a cached one would have cost; unknown is null."""

    id: str
    model: str
    prompt: PromptRef | None
    text: str
    finish_reason: str | None
    tokens: Tokens
    cost_usd: float | None
    saved_usd: float | None
    cached: bool
    latency_ms: float
    ttft_ms: float | None

    @classmethod
    def of(cls, id: str, call: Call, completion: Completion) -> Self:
        version = call.version
        return cls(
            id=id,
            model=call.request.endpoint.name,
            prompt=PromptRef(version.name, version.version) if version else None,
            text=completion.text,
            finish_reason=completion.finish_reason,
            tokens=Tokens(completion.usage.input_tokens, completion.usage.output_tokens),
            cost_usd=as_number(completion.cost_usd),
            saved_usd=as_number(completion.saved_usd),
            cached=completion.cached,
            latency_ms=completion.latency_ms,
            ttft_ms=completion.ttft_ms,
        )


def cache_use(cache_control: str) -> CacheUse:
    """What a request's Cache-Control asks of the response cache."""
    directives = {part.strip().lower() for part in cache_control.split(",")}
    if "no-store" in directives:
        return "no-store"
    return "no-cache" if directives & {"no-cache", "max-age=0"} else "use"


def max_age_s(cache_control: str) -> float | None:
    """How old a stored answer may be by a request's Cache-Control."""
    for part in cache_control.split(","):
        name, _, seconds = part.strip().partition("=")
        if name.lower() == "max-age" and seconds.isdecimal() and len(seconds) < 10:
            return float(seconds)
    return None


def as_number(amount: Decimal | None) -> float | None:
    """A Decimal as the JSON number nearest to it; unknown stays null."""
    return None if amount is None else float(amount)
