"""What goes back to the client: whole answers, and responses in pieces."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

from django.db import close_old_connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from autoforge.errors import AppError, refusal_response, server_error
from autoforge.http.asgi import ClientLeft, Headers, Receive, Scope, Send
from autoforge.http.daphne import abort, paced, release

logger = logging.getLogger("django.request")

Run = Callable[..., Awaitable[Any]]
_FILE_PIECE_BYTES = 64 * 1024
_END = object()


class Answer(NamedTuple):
    """A response that is complete in memory."""

    status: int
    headers: Headers
    content: bytes


def conclude(response: Any, handler_class: type) -> "Answer | StreamingHttpResponse":
    """The answer of a closed response, or the response itself if it comes in pieces.

    `handler_class` is the sender of Django's request_finished. To be called in the thread that made
    the response: its database connection is back in the pool afterwards, before a slow client has
    read anything.
    """
    response._handler_class = handler_class
    if isinstance(response, StreamingHttpResponse):
        if isinstance(response, FileResponse):
            response.block_size = _FILE_PIECE_BYTES
        close_old_connections()
        return response
    answer = Answer(response.status_code, headers_of(response), response.content)
    response.close()
    return answer


def headers_of(response: HttpResponseBase) -> Headers:
    """Header lines, one Set-Cookie for each cookie."""
    lines = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    cookies = (cookie.OutputString() for cookie in response.cookies.values())
    return lines + [(b"set-cookie", cookie.encode("ascii")) for cookie in cookies]


def refused(error: AppError, path: str) -> Answer:
    """`error` in the form that clients of `path` expect; needs no thread."""
    return _with_length(refusal_response(error, path))


def server_failed() -> Answer:
    """The 500 of what failed outside of every view."""
    return _with_length(server_error(HttpRequest()))


def _with_length(response: HttpResponse) -> Answer:
    length = (b"content-length", str(len(response.content)).encode())
    return Answer(response.status_code, [*headers_of(response), length], response.content)


async def send_answer(answer: Answer, send: Send, *, is_last: bool = True) -> None:
    """Head and body; with `is_last` false the connection stays ours for a moment."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.content, "more_body": not is_last})


async def send_stream(
    response: StreamingHttpResponse, scope: Scope, receive: Receive, send: Send, run: Run
) -> None:
    """Send piece by piece, at the client's pace, and stop when it leaves.

    `run` calls something in the one thread in which a sync iterator, its database connection and
    the end of the response belong together.
    """
    try:
        async with cancelled_when_client_leaves(receive):
            await _send_pieces(response, scope["method"] == "HEAD", paced(send), run)
        release(send)
        await send({"type": "http.response.body"})
    except ClientLeft:
        pass
    except Exception:
        logger.exception("%s broke off while it was sent", scope["path"])
        abort(send)
    finally:
        await run(response.close)


async def _send_pieces(response: StreamingHttpResponse, is_head: bool, send: Send, run: Run) -> None:
    head = {"status": response.status_code, "headers": headers_of(response)}
    await send({"type": "http.response.start"} | head)
    if is_head:
        return
    async with aclosing(_pieces_of(response, run)) as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _pieces_of(response: StreamingHttpResponse, run: Run) -> AsyncGenerator[bytes, None]:
    if response.is_async:
        async for piece in response:
            yield piece
        return
    iterator = await run(iter, response)
    while (piece := await run(next, iterator, _END)) is not _END:
        yield piece


@asynccontextmanager
async def cancelled_when_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client closes its connection, and raise ClientLeft after it."""
    task = asyncio.current_task()
    assert task is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not has_left:
            raise
        task.uncancel()
        raise ClientLeft from None
    finally:
        watcher.cancel()
