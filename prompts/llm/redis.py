"""Redis for coroutines: one client per event loop, many small commands in one round trip."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from prompts.llm.per_loop import PerLoop

MAX_BATCH = 500
RETRY_PAUSE_S = 1.0
WARN_EVERY_S = 30.0
FAILURES = (RedisError, OSError, asyncio.TimeoutError)

logger = logging.getLogger(__name__)
Command = tuple[Any, ...]
Batch = list[tuple[Command, asyncio.Future[Any]]]


class RedisDown(Exception):
    """Redis did not answer, or did not a moment ago."""


class Script:
    """A Lua script and the name under which Redis keeps it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Commands issued in the same moment travel together; while Redis is down they fail at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: Any = redis.asyncio.from_url(
            url,
            max_connections=settings.REDIS_MAX_CONNECTIONS,
            socket_timeout=settings.REDIS_TIMEOUT_S,
            socket_connect_timeout=settings.REDIS_TIMEOUT_S,
            socket_keepalive=settings.REDIS_SOCKET_KEEPALIVE,
            health_check_interval=settings.REDIS_HEALTH_CHECK_INTERVAL_S,
            # The client's own default sleeps for seconds before it says that Redis is down.
            retry=Retry(NoBackoff(), 1 if settings.REDIS_RETRY_ON_TIMEOUT else 0),
        )
        self._waiting: Batch = []
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False
        self._down_until = 0.0
        self._warn_from = 0.0

    async def script(self, script: "Script", keys: Sequence[str], *args: Any) -> Any:
        """The answer of a Lua script, in one round trip once Redis knows it. Raises RedisDown."""
        try:
            return await self.command("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.command("EVAL", script.source, len(keys), *keys, *args)

    async def command(self, *command: Any) -> Any:
        """The answer of one command. Raises RedisDown."""
        if time.monotonic() < self._down_until:
            raise RedisDown
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        if self._sender is not None:
            self._sender.cancel()
        await self.connection.aclose()

    async def _send(self) -> None:
        """Send what is waiting until nothing is: what comes meanwhile is the next batch."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                _resolve(batch, await self._answers(batch))
        finally:
            self._sender = None
            # Left only if this task was cancelled, as all are when a loop ends: who tidies up then is served.
            if self._waiting and not self._is_closed:
                self._sender = asyncio.create_task(self._send())
            else:
                self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """Nobody may wait for an answer that never comes."""
        _resolve(self._waiting, [RedisDown()] * len(self._waiting))
        self._waiting = []

    async def _answers(self, batch: Batch) -> list[Any]:
        """What Redis answers to a batch, errors among it."""
        try:
            pipeline = self.connection.pipeline(transaction=False)
            for command, _ in batch:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except FAILURES as error:
            self._pause(error)
            return [RedisDown(str(error))] * len(batch)
        except asyncio.CancelledError:
            _resolve(batch, [RedisDown()] * len(batch))
            raise
        return answers

    def _pause(self, error: BaseException) -> None:
        """Ask no more for a moment, and say so, but not for every call."""
        now = time.monotonic()
        self._down_until = now + RETRY_PAUSE_S
        if now >= self._warn_from:
            self._warn_from = now + WARN_EVERY_S
            logger.warning("Redis does not answer, working without it: %s", error)


def _open() -> RedisClient:
    return RedisClient(settings.REDIS_URL)


def _resolve(batch: Batch, answers: list[Any]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, NoScriptError | RedisDown):
            future.set_exception(answer)
        elif isinstance(answer, Exception):
            future.set_exception(RedisDown(str(answer)))
        else:
            future.set_result(answer)


clients: PerLoop[RedisClient] = PerLoop(_open, RedisClient.close)
"""The running loop's client of settings.REDIS_URL."""
