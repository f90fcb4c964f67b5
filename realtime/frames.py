"""What clients and server say to each other: one JSON object a text frame."""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from autoforge.errors import AppError, validation_sentence
from autoforge.parsers import holds_nul
from prompts.call_schemas import Messages
from prompts.schemas import VersionNumber

Id = Annotated[str, Meta(min_length=1, max_length=64)]


class Frame:
    """Text frames ready to be sent, in a row; made once and shared by every connection that gets them.

    `texts` are their payloads in UTF-8, `wire` all of them as a server's bytes (RFC 6455 section 5.2).
    What is left of some that were sent in part has no texts.
    """

    __slots__ = ("texts", "wire")

    def __init__(self, texts: Sequence[bytes], wire: bytes) -> None:
        self.texts = texts
        self.wire = wire


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
    version: VersionNumber | None = None
    messages: Messages | None = None
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


# The last (and only) piece of a text.
_FINAL_TEXT = 0x81
_decoder = msgspec.json.Decoder(FromClient)
# Nesting that is too deep is no JSON to us.
_NO_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_KNOWN_TYPES = tuple(kind.__name__.lower() for kind in get_args(FromClient))


def encode(message: _FromServer) -> Frame:
    """`message` as one text frame."""
    text = _encoder.encode(message)
    return Frame((text,), _head(len(text)) + text)


def joined(frames: Sequence[Frame]) -> Frame:
    """All of `frames`, to be sent at once."""
    if len(frames) == 1:
        return frames[0]
    texts = [text for frame in frames for text in frame.texts]
    return Frame(texts, b"".join(frame.wire for frame in frames))


def _head(size: int) -> bytes:
    """What stands before a text of `size` bytes that a server sends in one piece."""
    if size < 126:
        return bytes((_FINAL_TEXT, size))
    if size < 65_536:
        return struct.pack("!BBH", _FINAL_TEXT, 126, size)
    return struct.pack("!BBQ", _FINAL_TEXT, 127, size)


def close_message(code: int, reason: str = "") -> dict[str, Any]:
    """The end of a connection in ASGI. A reason may have 123 bytes (RFC 6455 section 5.5)."""
    short = reason.encode()[:123].decode(errors="ignore")
    return {"type": "websocket.close", "code": code, "reason": short}


def decode(text: str | bytes) -> FromClient:
    """What a client said. Raises BadJson, UnknownType, InvalidMessage with `id` and `topic` in `extra`."""
    try:
        said = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _refusal(text, validation_sentence(str(error))) from error
    except _NO_JSON as error:
        raise BadJson(f"A frame must be one JSON object: {error}.") from error
    if holds_nul(text if isinstance(text, bytes) else text.encode()):
        raise _refusal(text, "The frame holds the character U+0000, which cannot be stored: remove it.")
    return said


def _refusal(text: str | bytes, reason: str) -> AppError:
    """Slow path: look at what came, so that the answer can name it."""
    try:
        message = msgspec.json.decode(text)
    except _NO_JSON as error:
        # Its first wrong value was found before the place where it ceases to be JSON.
        return BadJson(f"A frame must be one JSON object: {error}.")
    if not isinstance(message, dict):
        return BadJson("A frame must be one JSON object.")
    about: dict[str, Any] = {
        name: value for name in ("id", "topic") if isinstance(value := message.get(name), str)
    }
    if message.get("type") not in _KNOWN_TYPES:
        return UnknownType(f"The type must be one of {', '.join(_KNOWN_TYPES)}.", **about)
    return InvalidMessage(reason, **about)


def error_frame(error: AppError) -> Frame:
    """The `error` that tells a client of a refusal."""
    return encode(Error(error.code, error.detail, error.extra.get("id"), error.extra.get("topic")))
