"""One bounded HTTP call of a vendor, with every failure turned into a ProviderError."""

from __future__ import annotations

import asyncio
import email.utils
import math
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from autoforge.lazy import lazy
from prompts.llm.providers.addresses import BlockedAddressError, public_socket
from prompts.llm.providers.base import ErrorCode, ProviderError, Request, Transport
from prompts.llm.providers.sse import Event, EventParser

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

MAX_CONNECTIONS = 2_000
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 60.0
END_TIMEOUT_S = 0.1
MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE_CHARS = 500
MAX_DEPTH = 100
MAX_TOKENS = 2**31 - 1  # what an integer column holds
MAX_RETRY_AFTER_S = 31 * 86_400.0

P = ParamSpec("P")
T = TypeVar("T")

_decode = msgspec.json.Decoder().decode
_CODES: dict[int, ErrorCode] = {
    401: "authentication",
    402: "quota_exceeded",
    403: "authentication",
    404: "not_found",
    408: "timeout",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_RETRYABLE_STATUSES = {408, 409, 425, 429}


async def load_client() -> None:
    """Import aiohttp, if nobody has, without holding up the event loop (0.2 s, once)."""
    if "aiohttp" not in sys.modules:
        await asyncio.to_thread(import_module, "aiohttp")


def open_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """A session for the running event loop. Its connections reach only public addresses unless allowed."""
    connector = aiohttp.TCPConnector(
        limit=MAX_CONNECTIONS,
        keepalive_timeout=KEEPALIVE_S,
        ttl_dns_cache=60,
        socket_factory=None if allow_private else public_socket,
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


@asynccontextmanager
async def post(
    transport: Transport, request: Request, url: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The vendor's successful response, its body still to be read. Raises ProviderError.

    Redirects are not followed: they could lead where a base URL may not.
    """
    timeout = aiohttp.ClientTimeout(total=transport.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with transport.session.post(
            url,
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json", **headers},
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise await _refusal(response, request)
            yield response
            await _read_end(response)
    except TimeoutError as error:
        sentence = f"{request.endpoint.name} gave no complete answer within {transport.timeout_s:g} s."
        raise ProviderError("timeout", sentence, is_retryable=True) from error
    except ValueError as error:
        # aiohttp refuses the URL or a header, such as a secret with a line break.
        sentence = f"{request.endpoint.name} cannot be called: its base URL or secret is malformed."
        raise ProviderError("invalid_request", sentence) from error
    except aiohttp.ClientConnectorError as error:
        raise _unreachable(error, request) from error
    except (aiohttp.ClientError, OSError) as error:
        sentence = f"The connection to {request.endpoint.name} broke: {type(error).__name__}."
        raise ProviderError("unavailable", sentence, is_retryable=True) from error


async def read_json(response: aiohttp.ClientResponse, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object, at most `max_bytes` of it. Raises ProviderError."""
    return as_object(await _read(response, max_bytes))


async def events(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncGenerator[Event, None]:
    """The body's server-sent events, at most `max_bytes` of them. Raises ProviderError."""
    parser, received = EventParser(), 0
    while chunk := await response.content.readany():
        received += len(chunk)
        if received > max_bytes:
            raise too_large(max_bytes)
        for event in parser.feed(chunk):
            yield event
    for event in parser.finish():
        yield event


def as_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises ProviderError (bad_response)."""
    try:
        value = _decoded(data)
    except msgspec.DecodeError as error:
        raise bad_response("is not JSON") from error
    if not isinstance(value, dict):
        raise bad_response("is not a JSON object")
    return value


def _decoded(data: bytes) -> Any:
    """JSON that everybody can walk through. Raises msgspec.DecodeError."""
    try:
        value = _decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
    # Counting is cheap, and hardly any answer has so many brackets.
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise msgspec.DecodeError("nested too deeply")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(item, levels - 1) for item in items)


def bad_response(what: str) -> ProviderError:
    """An answer that does not follow the protocol."""
    return ProviderError("bad_response", f"The model's answer {what}.", status=200)


def follows_protocol(parse: Callable[P, T]) -> Callable[P, T]:
    """`parse`, reporting an answer of another shape than it expects as a bad_response."""

    @wraps(parse)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise bad_response("does not follow the protocol") from error

    return checked


def too_large(max_bytes: int) -> ProviderError:
    """An answer over the bound. Asking again would give the same."""
    return ProviderError("bad_response", f"The model's answer is larger than {max_bytes / 2**20:g} MiB.")


def broken_stream(request: Request) -> ProviderError:
    """A stream that ended before the answer was complete."""
    sentence = f"{request.endpoint.name} broke its answer off before it was complete."
    return ProviderError("unavailable", sentence, is_retryable=True)


def error_sentence(request: Request, detail: str) -> str:
    """What the vendor said, shortened, with the secret taken out should it echo it."""
    secret = request.endpoint.api_key
    if secret:
        detail = detail.replace(secret, "***")
    return f"{request.endpoint.name}: {detail[:MAX_MESSAGE_CHARS]}"


def as_count(value: Any) -> int | None:
    """A number of tokens, if it can be one."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= MAX_TOKENS else None


def as_text(value: Any) -> str | None:
    """A string or nothing. Raises TypeError."""
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"expected a string, got {type(value).__name__}")


def milliseconds_since(started: float) -> float:
    """Elapsed time since a `time.perf_counter()`."""
    return round((time.perf_counter() - started) * 1000, 3)


async def _read_end(response: aiohttp.ClientResponse) -> None:
    """What comes behind the last event that counts: a connection is used again only when nothing is left."""
    with suppress(TimeoutError, aiohttp.ClientPayloadError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while await response.content.readany():
                pass


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    chunks, received = [], 0
    while chunk := await response.content.readany():
        received += len(chunk)
        if received > max_bytes:
            raise too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


async def _refusal(response: aiohttp.ClientResponse, request: Request) -> ProviderError:
    """The error that a status other than 200 means."""
    try:
        detail, kind = _detail(await _read(response, MAX_ERROR_BYTES))
    except (ProviderError, aiohttp.ClientPayloadError):
        detail, kind = "", ""
    status = response.status
    code = _code(status, kind)
    return ProviderError(
        code,
        error_sentence(request, detail or f"the vendor answered with status {status}"),
        status=status,
        retry_after_s=_retry_after_s(response.headers),
        is_retryable=_is_retryable(status, code, response.headers),
    )


def _detail(body: bytes) -> tuple[str, str]:
    """(message, kind) of an error body as OpenAI, Anthropic and FastAPI servers write it."""
    try:
        error = _decoded(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace").strip(), ""
    if isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail") or error
    if not isinstance(error, dict):
        return str(error), ""
    return str(error.get("message") or ""), f"{error.get('code') or ''} {error.get('type') or ''}"


def _code(status: int, kind: str) -> ErrorCode:
    if "content_filter" in kind or "content_policy" in kind:
        return "content_filter"
    if "insufficient_quota" in kind or "billing" in kind:
        return "quota_exceeded"
    return _CODES.get(status, "unavailable" if status >= 500 else "invalid_request")


def _is_retryable(status: int, code: ErrorCode, headers: Mapping[str, str]) -> bool:
    wish = headers.get("x-should-retry")
    if wish in {"true", "false"}:
        return wish == "true"
    return code not in {"quota_exceeded", "content_filter"} and (
        status in _RETRYABLE_STATUSES or status >= 500
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the vendor asks to wait: retry-after-ms, else Retry-After as seconds or date (RFC 9110)."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("Retry-After")
        if value is None:
            return None
        return _bounded(float(value) if value[:1].isdigit() else _seconds_until(value))
    except (ValueError, OverflowError):
        return None


def _bounded(wait_s: float) -> float | None:
    return max(0.0, min(wait_s, MAX_RETRY_AFTER_S)) if math.isfinite(wait_s) else None


def _seconds_until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def _unreachable(error: aiohttp.ClientConnectorError, request: Request) -> ProviderError:
    if isinstance(error.os_error, BlockedAddressError):
        return ProviderError("invalid_request", str(error.os_error))
    sentence = f"No connection to {request.endpoint.name}: {error.os_error.strerror or error.os_error}."
    return ProviderError("unavailable", sentence, is_retryable=True)
