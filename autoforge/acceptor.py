"""Accepts connections of a socket that several processes share, each its fair part.

An event loop that waits for connections is woken together with those of all other processes, and the
one that happens to be quicker takes nearly all. Who waits in `accept` itself is woken in turn, and of a
crowd that comes at once takes one only before the others had time to do the same.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

# How often a thread that waits for a connection looks whether it is still wanted.
LOOK_S = 0.1
# After each connection, the others' turn: 50 at once went to one process of two as a whole. So a process
# accepts 2,000 a second at most.
TURN_S = 0.0005
# After a refusal by the system, as when too many files are open.
REST_S = 0.1


class Acceptor:
    """A thread that hands each connection to the running loop; `close` ends it."""

    def __init__(self, listener: socket.socket, new_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._new_protocol = new_protocol
        self._loop = asyncio.get_running_loop()
        self._adopting: set[asyncio.Task[object]] = set()
        self._is_closed = False
        listener.setblocking(True)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LOOK_S * 1e6)))
        self._thread = threading.Thread(target=self._accept, name="acceptor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections: they wait for the other processes."""
        self._is_closed = True
        self._thread.join()

    async def wait_closed(self) -> None:
        """As asyncio's servers have it: `close` has waited already."""

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError:
                time.sleep(REST_S)
                continue
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._adopt, connection)
            time.sleep(TURN_S)

    def _adopt(self, connection: socket.socket) -> None:
        with suppress(OSError):  # it is gone already
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._new_protocol, connection))
            self._adopting.add(task)
            task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[object]) -> None:
        self._adopting.discard(task)
        if not task.cancelled():
            task.exception()  # a client that left within a moment is no news
