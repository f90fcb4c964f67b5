"""What a call costs, and the most it can cost."""

import asyncio
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

import msgspec

from prompts.llm.providers.base import Endpoint, Prices, Request, Usage

Messages = Iterable[Mapping[str, Any]]

MTOK = Decimal(1_000_000)
FREE_PROVIDERS = {"local", "simulated"}
DEFAULT_MAX_OUTPUT_TOKENS = 4_096  # where a request sets no maximum
TOKENS_PER_MESSAGE = 16  # roles and separators
TOKENS_PER_IMAGE = 3_000  # above what vendors count for their largest size
TOKENS_AROUND_TOOLS = 600  # above what vendors add to explain them
CHARS_PER_TOKEN = 4
EXPECTED_OUTPUT_TOKENS = 256
_MOST = 10_000_000  # tokens or answers: more than any model gives
_READ_BY_THE_MODEL = ("tools", "functions", "response_format")
_MAXIMA = ("max_completion_tokens", "max_tokens")
_VENDORS = {"openai": "openai", "anthropic": "anthropic"}


async def prepare(endpoint: Endpoint) -> None:
    """Read the price list, if this endpoint needs it, without holding up the event loop (0.3 s, once)."""
    if endpoint.prices is None and endpoint.provider in _VENDORS and not _price_list.cache_info().currsize:
        await asyncio.to_thread(_price_list)


def cost_usd(endpoint: Endpoint, usage: Usage) -> Decimal | None:
    """The price of a call: the endpoint's own prices, else the vendor's list; None if unknown."""
    if endpoint.prices is not None:
        return _own_price(endpoint.prices, usage)
    if endpoint.provider in FREE_PROVIDERS:
        return Decimal(0)
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return _list_price(endpoint.provider, endpoint.base_url, endpoint.model, usage)


def has_price(endpoint: Endpoint) -> bool:
    """Whether it is known what a call costs; of a model that costs nothing it is."""
    return cost_usd(endpoint, Usage(input_tokens=1, output_tokens=1)) is not None


def no_price_sentence(name: str) -> str:
    """What to tell whoever wants a budget kept on the endpoint called `name`."""
    return (
        f"No price of the model {name!r} is known, so no budget can be kept on it: "
        "set its prices (input_per_mtok and output_per_mtok, 0 if it is free)."
    )


def bounded(request: Request) -> Request:
    """The request with the maximum of output that `estimate_usd` counts: the model may not give more.

    A model that costs nothing is asked as before.
    """
    endpoint, params = request.endpoint, request.params
    if endpoint.prices is None and endpoint.provider in FREE_PROVIDERS:
        return request
    # OpenAI's newer models take only the one name, servers that speak its protocol often only the other.
    is_openai = endpoint.provider == "openai" and endpoint.base_url is None
    name = _MAXIMA[0] if is_openai or params.get(_MAXIMA[0]) else _MAXIMA[1]
    others = {key: value for key, value in params.items() if key not in _MAXIMA}
    most = _max_tokens(params, DEFAULT_MAX_OUTPUT_TOKENS)
    return msgspec.structs.replace(request, params=others | {name: most})


def estimate_usd(endpoint: Endpoint, messages: Messages, params: Mapping[str, Any]) -> Decimal:
    """An upper bound of what a call can cost, to reserve before it; 0 where no price is known.

    A token is at least one byte of UTF-8 in every byte-level vocabulary, so bytes bound the input, of which
    tools and the answer's schema are a part. The output is bounded by max_tokens, or
    DEFAULT_MAX_OUTPUT_TOKENS if the request sets none; see `bounded`.
    """
    inputs = _inputs(messages, params)
    outputs = _max_tokens(params, DEFAULT_MAX_OUTPUT_TOKENS) * _count(params.get("n"), 1)
    usage = Usage(input_tokens=inputs, output_tokens=outputs)
    return cost_usd(endpoint, usage) or Decimal(0)


def estimate_tokens(messages: Messages, params: Mapping[str, Any]) -> int:
    """About how many tokens a call takes from a limit of tokens per minute; settled afterwards."""
    return _inputs(messages, params) // CHARS_PER_TOKEN + _max_tokens(params, EXPECTED_OUTPUT_TOKENS)


def _own_price(prices: Prices, usage: Usage) -> Decimal | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    spent = prices.input_per_mtok * usage.input_tokens + prices.output_per_mtok * usage.output_tokens
    return spent / MTOK


@lru_cache(maxsize=4_096)
def _list_price(provider: str, base_url: str | None, model: str, usage: Usage) -> Decimal | None:
    """From the list that comes with genai-prices; it is never downloaded."""
    where = {"provider_api_url": base_url} if base_url else {"provider_id": _VENDORS[provider]}
    prices = _price_list()
    counted = prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        return Decimal(prices.calc_price(counted, model, **where).total_price)
    except (LookupError, ValueError):
        return None


@cache
def _price_list() -> Any:
    """The module genai_prices, its list read. 20 MB: only who calls a vendor without own prices pays."""
    import genai_prices

    # The first calculation reads the list.
    genai_prices.calc_price(genai_prices.Usage(input_tokens=0), "gpt-4o-mini", provider_id="openai")
    return genai_prices


def _max_tokens(params: Mapping[str, Any], default: int) -> int:
    wanted = params.get("max_completion_tokens") or params.get("max_tokens")
    return _count(wanted, default)


def _count(wanted: Any, default: int) -> int:
    """A parameter that should be a number above 0; what else a caller sends is for the vendor to refuse."""
    return min(wanted, _MOST) if isinstance(wanted, int) and wanted > 0 else default


def _inputs(messages: Messages, params: Mapping[str, Any]) -> int:
    """Most tokens that the model reads."""
    given = [params[name] for name in _READ_BY_THE_MODEL if params.get(name)]
    extra = TOKENS_AROUND_TOOLS + len(msgspec.json.encode(given)) if given else 0
    return extra + sum(_bound_of(message) for message in messages)


def _bound_of(message: Mapping[str, Any]) -> int:
    """Bytes of a message's text, counted as tokens, and its images."""
    content = message.get("content")
    calls = message.get("tool_calls")
    tokens = TOKENS_PER_MESSAGE + (len(msgspec.json.encode(calls)) if calls else 0)
    if isinstance(content, str):
        return tokens + (len(content) if content.isascii() else len(content.encode("utf-8", "replace")))
    for part in content or ():
        text = part.get("text") if isinstance(part, dict) else None
        tokens += len(text.encode("utf-8", "replace")) if isinstance(text, str) else TOKENS_PER_IMAGE
    return tokens
