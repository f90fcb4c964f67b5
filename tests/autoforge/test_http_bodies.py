"""Bodies of requests through real uvicorn and daphne processes."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from tests.autoforge.http_server import (
    TIMEOUT_S,
    Server,
    assert_problem,
    eventually,
    read_until_closed,
)

MIB = 1024 * 1024
LIMIT = 2 * MIB


@pytest.fixture
def early(server: Server) -> Server:
    """A server that shows us a body while it comes: daphne reads all of it before it calls us."""
    if server.kind == "daphne":
        pytest.skip("daphne reads the whole body before it calls the application")
    return server


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, LIMIT])
def test_bodies_arrive_whole(server, size):
    body = bytes(range(256)) * (size // 256) + b"\x01" * (size % 256)
    answer = server.ask("/echo", "POST", body).json()
    assert (answer["size"], answer["sum"]) == (size, sum(body))


def test_a_chunked_form_is_parsed(server):
    pieces = iter([b"name=a", b"da&city=", b"London"])
    headers = {"Transfer_Encoding": "chunked", "Content_Type": "application/x-www-form-urlencoded"}
    assert server.ask("/form", "POST", pieces, **headers).json()["fields"] == {
        "name": "ada",
        "city": "London",
    }


def test_a_declared_body_over_the_limit_is_refused(server):
    reply = server.ask("/echo", "POST", b"x" * (LIMIT + 1))
    assert_problem(reply, 413, "too_large")
    assert str(LIMIT) in reply.json()["detail"]


def test_an_announced_flood_is_refused_before_it_comes(early):
    with early.socket() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in client.makefile("rb").readline()


def test_a_chunked_body_over_the_limit_is_refused(server):
    pieces = (b"x" * 100_000 for _ in range(40))
    reply = server.ask("/echo", "POST", pieces, Transfer_Encoding="chunked")
    assert_problem(reply, 413, "too_large")


def test_an_import_may_be_larger(server):
    pieces = (b"x" * MIB for _ in range(20))
    reply = server.ask("/api/v1/datasets/a/b/import", "POST", pieces, Transfer_Encoding="chunked")
    assert reply.json() == {"size": 20 * MIB}


def test_an_import_has_a_limit_too(server):
    pieces = (b"x" * MIB for _ in range(66))
    reply = server.ask("/api/v1/datasets/a/import", "POST", pieces, Transfer_Encoding="chunked")
    assert_problem(reply, 413, "too_large")


def test_a_body_that_stops_is_given_up(early):
    with early.socket() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert b" 408 " in client.makefile("rb").readline()
    with early.socket() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert b" 408 " in client.makefile("rb").readline()


def test_a_body_that_drips_is_given_up(early):
    with early.socket() as client:
        client.settimeout(0.2)
        begin_body(client, 10_000)
        answer = b""
        for _ in range(25):
            client.sendall(b"x")
            with suppress(TimeoutError):
                answer += client.recv(65536)
            if answer:
                break
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer.lower()


def test_a_slow_body_that_keeps_coming_arrives(server):
    def pieces() -> Iterator[bytes]:
        for _ in range(8):
            time.sleep(0.2)
            yield b"x" * 16_384

    started = time.monotonic()
    reply = server.ask("/echo", "POST", pieces(), Transfer_Encoding="chunked")
    assert (reply.status, reply.json()["size"]) == (200, 8 * 16_384)
    assert time.monotonic() - started > 1.5  # longer than a body may be silent


def test_bodies_that_arrive_are_bounded_in_number(early):
    with early.socket() as one, early.socket() as other:
        for client in (one, other):
            begin_body(client, 4)
        eventually(lambda: is_refused_a_body(early))
        assert early.ask("/echo", "POST", b"whole").json()["size"] == 5
        for client in (one, other):
            client.sendall(b"yz")
            assert b" 200 " in client.makefile("rb").readline()
    assert not is_refused_a_body(early)


def is_refused_a_body(server: Server) -> bool:
    """Send a body in two pieces, the second when the server had time to answer the first."""
    with server.socket() as client:
        begin_body(client, 3)
        client.settimeout(0.2)
        answer = b""
        with suppress(TimeoutError):
            answer = client.recv(65536)
        client.settimeout(TIMEOUT_S)
        client.sendall(b"c")
        answer += read_until_closed(client)
    head = answer.lower()
    assert b"connection: close" in head
    assert (b" 503 " in head.split(b"\r\n")[0]) == (b"retry-after: 1" in head)
    return b" 503 " in head.split(b"\r\n")[0]


def begin_body(client: socket.socket, size: int) -> None:
    """The head of a request and the first two of its `size` bytes."""
    head = f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    client.sendall(head.encode() + b"ab")


def test_a_client_that_leaves_inside_its_body_holds_nothing(server):
    for _ in range(8):
        with server.socket() as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc")
    assert server.ask("/echo").status == 200


def test_bounds_that_let_no_body_in_are_named():
    with override_settings(HTTP_BODIES=0, HTTP_BODY_BYTES_PER_S=0):
        mistakes = [message.msg for message in run_checks() if "HTTP_BOD" in message.msg]
    assert [mistake.split(" must be")[0] for mistake in mistakes] == [
        "AUTOFORGE_HTTP_BODIES",
        "AUTOFORGE_HTTP_BODY_KB_PER_S",
    ]
