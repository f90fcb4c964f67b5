"""One client's WebSocket: what it says, one method per message type."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from channels.consumer import AsyncConsumer, get_handler_name
from channels.exceptions import StopConsumer
from django.conf import settings

from autoforge.errors import AppError, Conflict, NotAuthenticated, NotFound, RateLimited, TooLarge
from realtime import hub, metrics, topics
from realtime.auth import authenticate
from realtime.completions import stream_completion
from realtime.connection import Connection
from realtime.frames import (
    Cancel,
    Cancelled,
    CloseCode,
    Complete,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    close_message,
    decode,
    encode,
    error_frame,
)
from realtime.servers import Send
from realtime.threads import in_thread

# Completions that one connection may have under way at once.
MAX_COMPLETIONS = 16
# What one connection may say: some at once, then as much as REST takes of a key by default.
MESSAGES_AT_ONCE, MESSAGES_PER_S = 500, 100


class TooManyCompletions(AppError):
    status, code = 429, "too_many_completions"


class Duplicate(Conflict):
    code = "duplicate_id"


class Consumer(AsyncConsumer):
    """The protocol of docs/realtime.md."""

    connection: Connection | None = None

    def __init__(self) -> None:
        self.hub = hub.current()
        self.completions: dict[str, asyncio.Task[None]] = {}
        self._credit, self._heard_at = float(MESSAGES_AT_ONCE), 0.0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send
    ) -> None:
        """Channels' own loop, less what the hub makes needless: two tasks and a layer channel per client."""
        self.scope, self.base_send = scope, send
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        finally:
            self._end()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the method that is named like the ASGI message."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_connect(self, _message: dict[str, Any]) -> None:
        try:
            guest = await authenticate(self.scope)
        except (NotAuthenticated, RateLimited) as error:
            await self.base_send({"type": "websocket.accept"})
            await self.base_send(close_message(CloseCode.UNAUTHENTICATED, error.detail))
            return
        await self.base_send({"type": "websocket.accept"})
        # Headers and addresses have been read: 2 KiB that a server would keep as long as the client stays.
        self.scope.clear()
        self.connection = Connection(self.base_send, *guest)
        self.hub.enter(self.connection)

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        if self.connection is None or self.connection.is_closing:
            return
        metrics.received.inc()
        await self._pace()
        try:
            await self._obey(_text_of(message))
        except AppError as error:
            self.connection.offer(error_frame(error))

    async def websocket_disconnect(self, _message: dict[str, Any]) -> None:
        raise StopConsumer

    async def _pace(self) -> None:
        """Who says too much waits for an answer; meanwhile the server reads no more of it."""
        now = asyncio.get_running_loop().time()
        self._credit = min(self._credit + (now - self._heard_at) * MESSAGES_PER_S, MESSAGES_AT_ONCE) - 1
        self._heard_at = now
        if self._credit < 0:
            metrics.held_back.inc()
            await asyncio.sleep(-self._credit / MESSAGES_PER_S)

    async def _obey(self, text: str | bytes) -> None:
        said = decode(text)
        await getattr(self, type(said).__name__.lower())(said, self.connection)

    async def subscribe(self, said: Subscribe, connection: Connection) -> None:
        topic = topics.find(said.topic, connection.actor)
        if (
            topic is not None
            and topic.is_for_staff
            and not await in_thread(topics.is_staff, connection.actor)
        ):
            topic = None
        if topic is None:
            raise NotFound("There is no such topic.", topic=said.topic)
        self.hub.subscribe(connection, topic)

    async def unsubscribe(self, said: Unsubscribe, connection: Connection) -> None:
        self.hub.unsubscribe(connection, said.topic)

    async def complete(self, said: Complete, connection: Connection) -> None:
        if said.id in self.completions:
            raise Duplicate("A completion with this id is under way: choose another.", id=said.id)
        if len(self.completions) >= MAX_COMPLETIONS:
            raise TooManyCompletions(
                f"{MAX_COMPLETIONS} completions are under way: wait for one to end.", id=said.id
            )
        task = asyncio.create_task(stream_completion(connection, said))
        self.completions[said.id] = task
        task.add_done_callback(partial(self._completion_ended, said.id))

    async def cancel(self, said: Cancel, connection: Connection) -> None:
        task = self.completions.get(said.id)
        if task is None:
            raise NotFound("No completion with this id is under way.", id=said.id)
        task.cancel()

    async def ping(self, _said: Ping, connection: Connection) -> None:
        connection.offer(_PONG)

    def _completion_ended(self, id: str, task: asyncio.Task[None]) -> None:
        """Here and not in the task: one that is cancelled before it ever ran says nothing."""
        del self.completions[id]
        if task.cancelled() and self.connection is not None:
            self.connection.offer(encode(Cancelled(id)))

    def _end(self) -> None:
        """The client has gone: nothing of it stays, and no model works for it any more."""
        for task in list(self.completions.values()):
            task.cancel()
        if self.connection is not None:
            self.connection.is_closing = True
            self.connection.abandon()
            self.hub.leave(self.connection)


_PONG = encode(Pong())


def _text_of(message: dict[str, Any]) -> str | bytes:
    text: str | bytes = message.get("text") or message.get("bytes") or b""
    # Characters are at most as many as bytes: a long text is refused before it is encoded.
    size = (
        len(text)
        if isinstance(text, bytes) or len(text) > settings.WS_MAX_FRAME_BYTES
        else len(text.encode())
    )
    if size > settings.WS_MAX_FRAME_BYTES:
        raise TooLarge(f"A frame may have {settings.WS_MAX_FRAME_BYTES} bytes.")
    return text
