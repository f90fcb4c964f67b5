"""What clients and server say to each other: one JSON object a text frame."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from autoforge.errors import AppError

# A frame ready to be sent: the ASGI message, built once and shared by every connection that gets it.
Frame = dict[str, Any]
Id = Annotated[str, Meta(min_length=1, max_length=64)]


class CloseCode:
    """Why the server closes (RFC 6455 section 7.4; from 4000 on our own)."""

    RESTARTING = 1012
    UNAUTHENTICATED = 4401
    NO_SUCH_PATH = 4404
    TOO_SLOW = 4408


class _FromClient(msgspec.Struct, forbid_unknown_fields=True, tag=str.lower):
    pass


class Subscribe(_FromClient):
    topic: Annotated[str, Meta(max_length=100)]


class Unsubscribe(_FromClient):
    topic: Annotated[str, Meta(max_length=100)]


class Complete(_FromClient, kw_only=True):
    """Ask a model: a stored `prompt` rendered with `vars`, or `messages`; a prompt may bring its model."""

    id: Id
    model: str | None = None
    prompt: str | None = None
    label: str | None = None
    version: int | None = None
    messages: list[dict[str, Any]] | None = None
    vars: dict[str, Any] = {}
    params: dict[str, Any] = {}


class Cancel(_FromClient):
    id: Id


class Ping(_FromClient):
    pass


FromClient = Subscribe | Unsubscribe | Complete | Cancel | Ping


class _FromServer(msgspec.Struct, omit_defaults=True, tag=str.lower):
    pass


class Snapshot(_FromServer):
    """The state of `topic` up to event number `seq`."""

    topic: str
    seq: int
    data: Any


class Event(_FromServer):
    topic: str
    seq: int
    event: str
    data: msgspec.Raw


class Unsubscribed(_FromServer):
    topic: str


class Token(_FromServer):
    """The next piece of a completion's text."""

    id: str
    text: str


class Tokens(msgspec.Struct):
    input: int | None
    output: int | None


class Completed(_FromServer, kw_only=True):
    """A whole completion. Unknown is null."""

    id: str
    text: str
    finish_reason: str | None
    tokens: Tokens
    cost_usd: float | None
    saved_usd: float | None
    cached: bool
    latency_ms: float
    ttft_ms: float | None


class Failed(_FromServer):
    id: str
    code: str
    detail: str


class Cancelled(_FromServer):
    id: str


class Pong(_FromServer):
    pass


class Closing(_FromServer):
    """The server restarts: come back after `retry_after_ms`, which differs from client to client."""

    code: int
    retry_after_ms: int


class Error(_FromServer):
    """A refusal; `id` or `topic` says of what, when that could be read."""

    code: str
    detail: str
    id: str | None = None
    topic: str | None = None


class BadJson(AppError):
    code = "bad_json"


class UnknownType(AppError):
    code = "unknown_type"


class InvalidMessage(AppError):
    code = "invalid"


_decoder = msgspec.json.Decoder(FromClient)
_encoder = msgspec.json.Encoder()
_KNOWN_TYPES = ("subscribe", "unsubscribe", "complete", "cancel", "ping")


def encode(message: _FromServer) -> Frame:
    """`message` as one text frame."""
    return {"type": "websocket.send", "text": _encoder.encode(message).decode()}


def close_frame(code: int, reason: str = "") -> Frame:
    """The end of a connection. A reason may have 123 bytes (RFC 6455 section 5.5)."""
    short = reason.encode()[:123].decode(errors="ignore")
    return {"type": "websocket.close", "code": code, "reason": short}


def decode(text: str | bytes) -> FromClient:
    """What a client said. Raises BadJson, UnknownType, InvalidMessage with `id` and `topic` in `extra`."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _refusal(msgspec.json.decode(text), str(error)) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadJson(f"A frame must be one JSON object: {error}.") from error


def _refusal(message: Any, reason: str) -> AppError:
    """Slow path: look at what came, so that the answer can name it."""
    if not isinstance(message, dict):
        return BadJson("A frame must be one JSON object.")
    about: dict[str, Any] = {
        name: value for name in ("id", "topic") if isinstance(value := message.get(name), str)
    }
    if message.get("type") not in _KNOWN_TYPES:
        return UnknownType(f"The type must be one of {', '.join(_KNOWN_TYPES)}.", **about)
    return InvalidMessage(f"{reason}.", **about)


def error_frame(error: AppError) -> Frame:
    """The `error` that tells a client of a refusal."""
    return encode(Error(error.code, error.detail, error.extra.get("id"), error.extra.get("topic")))
