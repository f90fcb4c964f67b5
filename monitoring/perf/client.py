"""An HTTP/1.1 client that costs a few microseconds a request: it shares two cores with the server."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec

# Called once a request: (status, body), or (0, name of the failure).
Done = Callable[[int, bytes], None]

REFUSED, RESET, TIMED_OUT, BROKEN = b"refused", b"reset", b"timeout", b"broken"
_SWEEP_S = 0.5


class Answer(NamedTuple):
    """A response; status 0 when there was none, and then the body names the failure."""

    status: int
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class _Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time, no pipelining."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._done: Done | None = None
        self._failure = RESET
        self._first_at = 0.0
        self.transport: asyncio.Transport | None = None
        self.started_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a TCP connection

    def start(self, request: bytes, done: Done) -> None:
        self._done = done
        self.started_at = perf_counter()
        assert self.transport is not None
        self.transport.write(request)

    def give_up_before(self, instant: float) -> None:
        """Cut the connection if its request was sent before `instant` (perf_counter)."""
        if self._done and self.started_at < instant and self.transport:
            self._fail(TIMED_OUT)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(BROKEN)

    def on_body(self, body: bytes) -> None:
        if not self._pieces:
            self._first_at = perf_counter()
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer: the real one follows
            self._pieces.clear()
            return
        done, self._done = self._done, None
        pieces, self._pieces = self._pieces, []
        if self._parser.should_keep_alive():
            self._client.release(self)
        elif self.transport:
            self.transport.close()
        if done:
            self._client.first_at = self._first_at
            done(status, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._client.forget(self)
        if done := self._done:
            self._done = None
            done(0, self._failure)

    def _fail(self, failure: bytes) -> None:
        self._failure = failure
        if self.transport:
            self.transport.abort()


class Client:
    """At most `connections` requests at once; further ones wait here, their clock running."""

    def __init__(self, url: str, *, key: str = "", connections: int = 64, timeout_s: float = 30.0) -> None:
        """`url` is scheme://host[:port] with http or https; `key` goes out as a bearer token."""
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._is_tls else 80)
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n{authorization}"
        self._limit, self._timeout_s = connections, timeout_s
        self.first_at = 0.0
        """When the first piece came of the body that is just being handed over (perf_counter)."""
        self._free: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._queue: deque[tuple[bytes, Done]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Client":
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._opening, *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._all:
            if connection.transport:
                connection.transport.abort()
        await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        """Requests for which no connection was free yet."""
        return len(self._queue)

    async def open_all(self) -> None:
        """Connect now, so that no measured request pays for it. Raises OSError."""
        await asyncio.gather(*(self._connect() for _ in range(self._limit - len(self._all))))

    def encode(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> bytes:
        """The bytes of a request; `body` is bytes, or is sent as JSON."""
        head = f"{method} {path}{self._head}"
        if body is None:
            return f"{head}\r\n".encode()
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    def send(self, request: bytes, done: Done) -> None:
        """Send an encoded request as soon as a connection is free; `done` is called exactly once."""
        if self._free:
            self._free.popleft().start(request, done)
            return
        self._queue.append((request, done))
        self._open_more()

    async def ask(self, request: bytes) -> Answer:
        """Send one encoded request and wait for its answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(status: int, body: bytes) -> None:
            if not answer.done():
                answer.set_result(Answer(status, body))

        self.send(request, done)
        return await answer

    def give_up(self) -> None:
        """Forget what waits and cut what is under way: the next load starts with nothing in flight."""
        self._queue.clear()
        for connection in tuple(self._all):
            connection.give_up_before(perf_counter())

    def release(self, connection: _Connection) -> None:
        """Called by a connection that may take the next request."""
        if self._queue:
            connection.start(*self._queue.popleft())
        else:
            # The longest idle one is taken first, so none idles until the server closes it.
            self._free.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Called by a connection that is gone."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if self._queue:
            self._open_more()

    def _open_more(self) -> None:
        if len(self._all) + len(self._opening) < self._limit:
            task = asyncio.ensure_future(self._connect_or_fail())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if self._queue and not task.cancelled():
            self._open_more()

    async def _connect_or_fail(self) -> None:
        try:
            await self._connect()
        except OSError:
            if self._queue:
                self._queue.popleft()[1](0, REFUSED)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), self._host, self._port, ssl=self._is_tls or None
        )
        self._all.add(connection)
        self.release(connection)

    async def _sweep(self) -> None:
        """One look over all connections twice a second costs less than a timer a request."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            instant = perf_counter() - self._timeout_s
            for connection in tuple(self._all):
                connection.give_up_before(instant)
