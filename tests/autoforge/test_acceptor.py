"""Loops that accept from one socket get equal parts, and leave connections to the others when they end."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from autoforge.acceptor import Acceptor

CONNECTIONS = 40


class Greeter(asyncio.Protocol):
    """Says who accepted."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.name)  # type: ignore[attr-defined]


class Side:
    """One loop in a thread, as a process of its own would have it."""

    def __init__(self, listener: socket.socket, name: bytes) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.acceptor = self.call(lambda: Acceptor(listener, lambda: Greeter(name)))

    def call(self, function):
        async def called():
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(30)

    def end(self) -> None:
        self.call(self.acceptor.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def greeting(listener: socket.socket) -> bytes:
    """Who accepts a connection that comes now."""
    with socket.create_connection(listener.getsockname(), timeout=30) as client:
        return client.recv(1)


def test_each_gets_its_part(listener: socket.socket) -> None:
    sides = [Side(listener, name) for name in (b"a", b"b")]
    try:
        heard = [greeting(listener) for _ in range(CONNECTIONS)]
    finally:
        for side in sides:
            side.end()
    assert heard.count(b"a") + heard.count(b"b") == CONNECTIONS
    assert heard.count(b"a") >= CONNECTIONS // 4 <= heard.count(b"b")


def test_each_gets_its_part_of_a_crowd_that_comes_at_once(listener: socket.socket) -> None:
    sides = [Side(listener, name) for name in (b"a", b"b")]
    clients = [socket.create_connection(listener.getsockname(), timeout=30) for _ in range(CONNECTIONS)]
    try:
        heard = [client.recv(1) for client in clients]
    finally:
        for client in clients:
            client.close()
        for side in sides:
            side.end()
    assert heard.count(b"a") >= CONNECTIONS // 4 <= heard.count(b"b")


def test_who_ends_leaves_connections_to_the_others(listener: socket.socket) -> None:
    first = Side(listener, b"a")
    second = Side(listener, b"b")
    first.end()
    try:
        assert [greeting(listener) for _ in range(10)] == [b"b"] * 10
    finally:
        second.end()


def test_connections_wait_while_nobody_accepts(listener: socket.socket) -> None:
    Side(listener, b"a").end()
    with socket.create_connection(listener.getsockname(), timeout=30) as client:
        side = Side(listener, b"b")
        try:
            assert client.recv(1) == b"b"
        finally:
            side.end()
