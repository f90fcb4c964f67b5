"""Request bodies: bounded in size, in number while they arrive and in time, large ones on disk."""

import asyncio
import io
import re
from tempfile import SpooledTemporaryFile
from typing import IO

from django.conf import settings

from autoforge.errors import AppError, TooLarge, Unavailable
from autoforge.http.asgi import ClientLeft, Headers, Receive, Scope

_IMPORT = re.compile(r"(/api/v1/datasets/.+|/admin/evaluations/dataset/\d+)/import/?")
_TRACES = "/api/public/otel/v1/traces"
_INGESTION = "/api/public/ingestion"
# A refused client that still sends is listened to this long, or a reset would eat our answer.
_FAREWELL_S = 5.0


class BodyTimeout(AppError):
    status, code = 408, "body_timeout"


def body_limit(path: str) -> int:
    """The most bytes that `path` takes."""
    if path == _TRACES:
        return settings.MAX_TRACES_BYTES
    if path == _INGESTION:
        return settings.MAX_INGESTION_BYTES
    return settings.MAX_IMPORT_BYTES if _IMPORT.fullmatch(path) else settings.MAX_BODY_BYTES


class Bodies:
    """Takes in the bodies of requests; those that come in pieces are bounded in number."""

    def __init__(self) -> None:
        self._arriving = 0

    async def read(self, scope: Scope, receive: Receive) -> IO[bytes]:
        """The whole body, at its start. Raises TooLarge, BodyTimeout, Unavailable, ClientLeft."""
        declared = declared_length(scope["headers"])
        if declared == 0:
            return io.BytesIO()
        limit = body_limit(scope["path"])
        if declared is not None and declared > limit:
            raise too_large(limit)
        try:
            async with asyncio.timeout(settings.HTTP_BODY_IDLE_S) as patience:
                piece, is_complete = await next_piece(receive)
                if not is_complete:
                    return await self._collect(piece, receive, limit, patience)
        except TimeoutError as error:
            raise _too_slow() from error
        if len(piece) > limit:
            raise too_large(limit)
        return io.BytesIO(piece)

    async def _collect(
        self, piece: bytes, receive: Receive, limit: int, patience: asyncio.Timeout
    ) -> IO[bytes]:
        if self._arriving >= settings.HTTP_BODIES:
            raise Unavailable(
                "As many request bodies arrive as this server can take: try again shortly.",
                headers={"Retry-After": "1", "Connection": "close"},
            )
        self._arriving += 1
        try:
            return await _to_the_end(piece, receive, limit, patience)
        finally:
            self._arriving -= 1


def declared_length(headers: Headers) -> int | None:
    """What Content-Length says; 0 for a request without a body, None for one of unknown length."""
    is_chunked = False
    for name, value in headers:
        if name == b"content-length":
            return int(value)
        is_chunked = is_chunked or name == b"transfer-encoding"
    return None if is_chunked else 0


async def _to_the_end(piece: bytes, receive: Receive, limit: int, patience: asyncio.Timeout) -> IO[bytes]:
    """A body that began with `piece`.

    Writing to the file blocks the loop for as long as the page cache needs: microseconds a piece.
    """
    body = SpooledTemporaryFile(max_size=settings.HTTP_SPOOL_BYTES)  # noqa: SIM115  closed with the request
    now = asyncio.get_running_loop().time
    began, size, is_complete = now(), len(piece), False
    try:
        body.write(piece)
        while not is_complete:
            patience.reschedule(_deadline(began, now(), size))
            piece, is_complete = await next_piece(receive)
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            body.write(piece)
    except BaseException:
        body.close()
        raise
    body.seek(0)
    return body


def _deadline(began: float, now: float, size: int) -> float:
    """When to stop waiting: after silence, or when `size` bytes took longer than the lowest rate allows."""
    return min(now, began + size / settings.HTTP_BODY_BYTES_PER_S) + settings.HTTP_BODY_IDLE_S


def _too_slow() -> BodyTimeout:
    idle_s, rate = settings.HTTP_BODY_IDLE_S, settings.HTTP_BODY_BYTES_PER_S
    return BodyTimeout(
        f"The body stopped for {idle_s:g} seconds, or came with less than {rate} bytes a second.",
        headers={"Connection": "close"},
    )


async def next_piece(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes, and whether they are the last. Raises ClientLeft."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message.get("body", b""), not message.get("more_body", False)


def too_large(limit: int) -> TooLarge:
    """The refusal that names the limit."""
    return TooLarge(
        f"The request body is larger than {limit} bytes, the limit of this route.",
        headers={"Connection": "close"},
        limit_bytes=limit,
    )


async def discard(receive: Receive) -> None:
    """Read a refused body into nothing, for a few seconds."""
    try:
        async with asyncio.timeout(_FAREWELL_S):
            while not (await next_piece(receive))[1]:
                pass
    except (ClientLeft, TimeoutError):
        return
