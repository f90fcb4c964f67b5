"""uvicorn's WebSocket protocol, less what an open connection does not need: 19 KiB a client become 8.

For uvicorn 0.54 with `ws="realtime.lean:LeanProtocol"`. It adds to ASGI what `realtime.servers` asks of a
server: many frames in one write. Where each KiB goes is in docs/performance/realtime.md.
"""

import asyncio
import math
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers

from realtime.frames import Frame, close_message
from realtime.servers import Behind, Link, begun, bound_buffers

_PING = b"\x89\x00"
_TICK_S = 1.0
# Pieces that a client may send a message in.
MAX_FRAGMENTS = 1_024
_NO_UTF8, _POLICY_VIOLATION = 1007, 1008
# Of a transport that takes what it is given; shared by all connections, and never cleared.
_WRITABLE = asyncio.Event()
_WRITABLE.set()
_NO_HEADERS = Headers()


class _Inbox:
    """Stands in for asyncio.Queue, which takes 2 KiB: what one reader has not asked for yet."""

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        return not self._messages

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._waiter = None
        return self._messages.pop(0)


class LeanProtocol(Link, WebSocketsSansIOProtocol):
    """One client's connection. uvicorn bounds what comes in: it reads on when a message has been taken."""

    # Its base keeps them in a dictionary of 1.6 KiB.
    __slots__ = (
        "app",
        "app_state",
        "asgi_version",
        "client",
        "close_sent",
        "close_timeout",
        "close_timer",
        "config",
        "conn",
        "connections",
        "curr_msg_data_type",
        "default_headers",
        "disconnected",
        "file",
        "frames",
        "handshake_complete",
        "handshake_initiated",
        "initial_response",
        "last_ping_rtt",
        "logger",
        "loop",
        "pending_ping_payload",
        "ping_interval",
        "ping_sent_at",
        "ping_timeout",
        "ping_timer",
        "pings_unheard",
        "pong_timer",
        "queue",
        "read_paused",
        "request",
        "response",
        "root_path",
        "scheme",
        "scope",
        "server",
        "tasks",
        "transport",
        "writable",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue: Any = _Inbox()
        self.writable = _WRITABLE
        self.pings_unheard = 0
        self.file = -1

    def data_received(self, data: bytes) -> None:
        self.pings_unheard = 0
        super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """Its base logs a text that is no UTF-8 as an error of ours."""
        if self.curr_msg_data_type == "bytes" or _is_utf8(b"".join(self.frames)):
            super().send_receive_event_to_app()
        else:
            self._fail(_NO_UTF8, "a text must be UTF-8")

    def handle_cont(self, event: Any) -> None:
        """A frame may be empty: without a bound on their number a message would have none."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
            return
        self._fail(_POLICY_VIOLATION, f"a message may have {MAX_FRAGMENTS} fragments")

    def pause_writing(self) -> None:
        """Who does not read is not listened to either: answers to pings would pile up."""
        self.writable = asyncio.Event()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writable.set()
        self.writable = _WRITABLE
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self.writable is _WRITABLE:
                self.transport.resume_reading()
        return message

    def start_keepalive(self) -> None:
        """Called once, when the handshake has been answered: from now on nobody asks what it was."""
        self.request.headers = _NO_HEADERS  # the parser keeps the request
        self.request = self.response = self.server = self.client = None  # type: ignore[assignment]  # ours
        sock = self.transport.get_extra_info("socket")
        bound_buffers(sock)
        if sock is not None and self.transport.get_extra_info("sslcontext") is None:
            self.file = sock.fileno()
        if self.ping_interval:
            _heart_of(self).start()

    def stop_keepalive(self) -> None:
        """Nothing to stop: the heart finds out."""

    def ping(self, patience: float) -> None:
        """Ask whether the client is there; end the connection when it has left `patience` pings unheard."""
        if not self.handshake_complete or self.disconnected or self.close_sent:
            return
        if self.pings_unheard >= patience:
            self.keepalive_timeout()
        else:
            self.pings_unheard += 1
            self.transport.write(_PING)

    def write(self, frame: Frame) -> Behind:
        if self.disconnected or self.close_sent:
            raise ConnectionError("The WebSocket is closed.")
        self.transport.write(frame.wire)
        return None if self.writable is _WRITABLE else self.writable.wait()

    @property
    def idle_file(self) -> int:
        is_open = not (self.disconnected or self.close_sent or self.transport.is_closing())
        return self.file if is_open and not self.transport.get_write_buffer_size() else -1

    def close(self, code: int, reason: str) -> Behind:
        message: Any = close_message(code, reason)
        return begun(self.send(message))

    def abort(self) -> None:
        self.transport.abort()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Heart:
    """Pings all connections of a server, in turn, each once an interval: one timer instead of one each."""

    def __init__(self, connections: set[Any], config: Config) -> None:
        interval_s = config.ws_ping_interval
        assert interval_s, "only who pings has a heart"
        self._connections = connections
        self._ticks = max(1, round(interval_s / _TICK_S))
        self._patience = 1 + (config.ws_ping_timeout or math.inf) / interval_s
        self._due: list[LeanProtocol] = []
        self._at_once = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat, if it does not yet, until there is no connection left."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._beat)

    def _beat(self) -> None:
        if not self._due:
            self._due = [each for each in self._connections if isinstance(each, LeanProtocol)]
            self._at_once = math.ceil(len(self._due) / self._ticks)
        for _ in range(min(self._at_once, len(self._due))):
            self._due.pop().ping(self._patience)
        self._timer = None
        if self._connections:
            self.start()


# By the configuration of the server.
_hearts: WeakKeyDictionary[Config, _Heart] = WeakKeyDictionary()


def _heart_of(protocol: LeanProtocol) -> _Heart:
    heart = _hearts.get(protocol.config)
    if heart is None:
        heart = _hearts[protocol.config] = _Heart(protocol.connections, protocol.config)
    return heart
