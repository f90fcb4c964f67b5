"""daphne's WebSocket protocol, less what it leaves unbounded, with what `realtime.servers` asks of a server.

For daphne 4.2 as `daphne.ws_protocol.WebSocketFactory.protocol`; only a process that serves with daphne
imports this. By itself daphne waits for no client: what one does not read piles up, and so does what one
says faster than the application listens.
"""

import asyncio
from typing import Any

from autobahn.websocket.types import ConnectionDeny
from daphne.ws_protocol import WebSocketProtocol

from realtime.frames import Frame, close_message
from realtime.servers import Behind, Link, bound_buffers

# Messages that wait for the application before no more are read, and how soon it is looked at again.
MAX_UNHEARD = 8
# What daphne and autobahn would keep for as long as the client stays, and never look at again.
_OF_THE_HANDSHAKE = (
    "clean_headers",
    "http_headers",
    "http_headers_cnt",
    "http_request_data",
    "http_request_params",
    "http_response_data",
)
LOOK_AGAIN_S = 0.05


class BoundProtocol(Link, WebSocketProtocol):
    """One client's connection. Twisted calls what is named in its style (its IPushProducer)."""

    application_queue: "asyncio.Queue[Any]"
    _resumed: asyncio.Event | None = None
    _is_deaf = False

    def onOpen(self) -> None:
        super().onOpen()
        # The HTTP request that became this WebSocket is still registered, and would stop us reading.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        bound_buffers(self.transport.getHandle())
        # Who breaks the protocol is told so; by itself autobahn just drops them.
        self.failByDrop = False
        for name in _OF_THE_HANDSHAKE:
            setattr(self, name, None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        super().onMessage(payload, isBinary)
        if not self._is_deaf and self.application_queue.qsize() >= MAX_UNHEARD:
            self._is_deaf = True
            self.transport.pauseProducing()
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._hear_again)

    def write(self, frame: Frame) -> Behind:
        # daphne's own way refuses to send more than it would receive.
        self._open_transport().write(bytes(frame.wire))
        return None if self._resumed is None else self._resumed.wait()

    @property
    def idle_file(self) -> int:
        transport = self.transport
        is_open = self.state == self.STATE_OPEN and transport.connected and not transport.disconnecting
        waits = transport.dataBuffer or transport._tempDataLen  # Twisted's: what it has yet to send
        return transport.fileno() if is_open and not (waits or transport.TLS) else -1

    def close(self, code: int, reason: str) -> Behind:
        self._open_transport()
        # daphne's own way drops the reason, and refuses 1012 as a code.
        message = close_message(code, reason)
        self.sendCloseFrame(code, message["reason"].encode())
        return None

    def abort(self) -> None:
        self.transport.abortConnection()

    def refuse(self, status: int, reason: str) -> None:
        """Answer the handshake with an HTTP status; daphne's own way knows only 403."""
        denial: Any = ConnectionDeny
        self.handshake_deferred.errback(denial(code=status, reason=reason))
        del self.handshake_deferred
        self.server.protocol_disconnected(self)

    def pauseProducing(self) -> None:
        """Who does not read is not listened to either: answers to pings would pile up."""
        self._resumed = self._resumed or asyncio.Event()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
            self._read_on()

    stopProducing = resumeProducing

    def _open_transport(self) -> Any:
        if self.state != self.STATE_OPEN:
            raise ConnectionError("The WebSocket is closed.")
        return self.transport

    def _hear_again(self) -> None:
        if self.application_queue.qsize() >= MAX_UNHEARD:
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._hear_again)
            return
        self._is_deaf = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._is_deaf and self._resumed is None and self.transport.connected:
            self.transport.resumeProducing()
