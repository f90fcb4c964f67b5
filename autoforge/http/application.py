"""The ASGI application for HTTP: takes the body in, lets Django answer, ends all that it began."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.db import close_old_connections
from django.http import StreamingHttpResponse

from autoforge.errors import AppError, Unavailable
from autoforge.http import metrics
from autoforge.http.answers import (
    Answer,
    cancelled_when_client_leaves,
    refused,
    send_answer,
    send_stream,
    server_failed,
)
from autoforge.http.asgi import ClientLeft, Receive, Scope, Send
from autoforge.http.async_handler import AsyncHandler
from autoforge.http.body import Bodies, discard
from autoforge.http.daphne import request_of
from autoforge.http.handlers import BadQuery, SyncHandler, new_request
from autoforge.http.threads import Threads

logger = logging.getLogger("django.request")


class HttpApplication:
    """Sync views in a bounded pool of standing threads, async views on the loop."""

    def __init__(self, *, is_async: Callable[[str], bool]) -> None:
        """`is_async(path)` says whether the view behind `path` waits for a model or streams."""
        self._is_async = is_async
        self._bodies = Bodies()
        self._threads = Threads(settings.HTTP_THREADS, queue=settings.HTTP_QUEUE)
        self._sync = SyncHandler()
        self._async = AsyncHandler(self._threads)
        self._in_flight = self._waiting = self._streams = 0
        self._is_closing = False
        self._is_idle = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serve(scope, receive, send)
        await (serving if request_of(send) is None else _outlast_cancellation(serving))

    def sample(self) -> None:
        """Tell Prometheus how much is going on: to be called about once a second."""
        metrics.in_flight.set(self._in_flight)

    async def close(self) -> None:
        """Refuse what comes, wait for what is in flight, free the threads."""
        self._is_closing = True
        try:
            async with asyncio.timeout(settings.HTTP_SHUTDOWN_S):
                while self._in_flight:
                    self._is_idle.clear()
                    await self._is_idle.wait()
        except TimeoutError:
            logger.warning("%d requests were still in flight at the end", self._in_flight)
        self._threads.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._in_flight += 1
        try:
            await self._respond(scope, receive, send)
        except ClientLeft:
            metrics.clients_left.inc()
        except AppError as refusal:
            await _refuse(refusal, scope, receive, send)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_closing:
            raise _unavailable("The server is shutting down: try again in a few seconds.", 5)
        body = await self._bodies.read(scope, receive)
        is_async = self._is_async(scope["path"])
        metrics.arrived(scope, waits_for_model=is_async)
        if is_async:
            await self._respond_async(scope, body, receive, send)
            return
        if self._threads.is_full:
            body.close()
            raise _unavailable("The server has more requests than it can answer: try again shortly.")
        answer = await self._answer(scope, body)
        if isinstance(answer, Answer):
            await send_answer(answer, send)
        else:
            await self._stream(answer, scope, receive, send)

    async def _answer(self, scope: Scope, body: IO[bytes]) -> Answer | StreamingHttpResponse:
        try:
            return await self._threads.run(self._sync.respond, scope, body)
        except Exception:
            logger.exception("%s %s failed outside of its view", scope["method"], scope["path"])
            body.close()
            metrics.refused(scope["method"], 500)
            return server_failed()

    async def _stream(
        self, response: StreamingHttpResponse, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """In a thread of its own: a client that reads slowly holds up nobody."""
        if self._streams >= settings.HTTP_STREAMS:
            await self._threads.run(response.close)
            raise _unavailable("The server sends as many long answers as it can: try again shortly.")
        self._streams += 1
        thread = ThreadPoolExecutor(1, "http-stream")
        run = partial(asyncio.get_running_loop().run_in_executor, thread)
        try:
            await send_stream(response, scope, receive, send, run)
        finally:
            thread.shutdown(wait=False)
            self._streams -= 1

    async def _respond_async(self, scope: Scope, body: IO[bytes], receive: Receive, send: Send) -> None:
        if self._waiting >= settings.HTTP_ASYNC_REQUESTS:
            body.close()
            raise _unavailable("As many requests wait for models as this server can hold.")
        self._waiting += 1
        try:
            async with ThreadSensitiveContext() as context:
                await self._await_view(scope, body, receive, send)
                if context in SyncToAsync.context_to_thread_executor:
                    # The view used Django's async ORM: its thread ends, its connection must not.
                    await sync_to_async(close_old_connections)()
        finally:
            self._waiting -= 1
            body.close()

    async def _await_view(self, scope: Scope, body: IO[bytes], receive: Receive, send: Send) -> None:
        request = new_request(scope, body)
        if request is None:
            raise BadQuery
        async with cancelled_when_client_leaves(receive):
            answer = await self._async.respond(request)
        if isinstance(answer, Answer):
            await send_answer(answer, send)
        else:
            run = self._async.runner_of(request) if answer.is_async else self._async.visit_thread
            await send_stream(answer, scope, receive, send, run)


async def _outlast_cancellation(serving: Coroutine[Any, Any, None]) -> None:
    """When daphne stops, it cancels what is in flight; other servers wait a while, and so do we."""
    task = asyncio.ensure_future(serving)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=settings.HTTP_SHUTDOWN_S)
        task.cancel()
        raise


def _unavailable(detail: str, retry_after_s: int = 1) -> Unavailable:
    return Unavailable(detail, headers={"Retry-After": str(retry_after_s)})


async def _refuse(refusal: AppError, scope: Scope, receive: Receive, send: Send) -> None:
    answer = refused(refusal, scope["path"])
    metrics.refused(scope["method"], answer.status)
    if refusal.headers.get("Connection") != "close":
        await send_answer(answer, send)
        return
    # The client may still be sending: closing now would reset its connection before it reads us.
    await send_answer(answer, send, is_last=False)
    await discard(receive)
    await send({"type": "http.response.body"})
