"""HTTP through real uvicorn and daphne processes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.autoforge.http_server import KINDS, Server, ask, assert_problem, eventually, read, serve

MIB = 1024 * 1024
LIMIT = 2 * MIB


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    with serve(request.param, folder, DATABASE_URL="") as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The module's server, with sentinel files of this test alone; nothing of it stays behind."""
    server = running.for_test()
    yield server
    server.say("go")


# Requests as they arrive


def test_a_request_runs_in_a_standing_thread(server):
    threads = {server.ask("/echo").json()["thread"] for _ in range(6)}
    assert threads <= {"http_0", "http_1"}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/echo/a%2Fb", "/echo/a/b"),
        ("/echo/gr%C3%BC%C3%9Fe", "/echo/grüße"),
        ("/echo/a%20b//c", "/echo/a b//c"),
        ("/echo/%25", "/echo/%"),
    ],
)
def test_paths_arrive_decoded_once(server, target, path):
    answer = server.ask(f"{target}?q=%C3%A4+%26").json()
    assert answer["path"] == path
    assert answer["query"]["q"] == "ä &"


def test_a_query_that_is_no_utf8_is_refused(server):
    with server.socket() as client:
        client.sendall(b"GET /echo?\xff HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        head = client.makefile("rb").readline()
    assert b" 400 " in head


def test_repeated_headers_are_joined_and_underscores_dropped(server):
    with server.socket() as client:
        client.sendall(
            b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"X-Many: one\r\nX-Many: two\r\nX_Forged: yes\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    assert b'"X-Many": "one,two"' in answer
    assert b"orged" not in answer


def test_a_connection_serves_many_requests(server):
    with closing(server.connect()) as connection:
        for number in range(5):
            reply = ask(connection, f"/echo/{number}", "POST", b"x" * number)
            assert (reply.json()["path"], reply.json()["size"]) == (f"/echo/{number}", number)


# Bodies


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


def test_an_announced_flood_is_refused_before_it_comes(server):
    if server.kind == "daphne":
        pytest.skip("daphne reads the whole body before it calls the application")
    with server.socket() as client:
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


def test_a_body_that_stops_is_given_up(server):
    if server.kind == "daphne":
        pytest.skip("daphne reads the whole body before it calls the application")
    with server.socket() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert b" 408 " in client.makefile("rb").readline()


def test_a_client_that_leaves_inside_its_body_holds_nothing(server):
    for _ in range(8):
        with server.socket() as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc")
    assert server.ask("/echo").status == 200


# Answers


def test_head_has_the_headers_and_no_body(server):
    with closing(server.connect()) as connection:
        reply = ask(connection, "/cookies", "HEAD")
        assert (reply.status, reply.headers["Content-Length"], reply.body) == (200, "3", b"")
        assert ask(connection, server.url("/stream"), "HEAD").body == b""
        assert ask(connection, "/cookies").body == b"two"


def test_each_cookie_has_its_line(server):
    lines = server.ask("/cookies").headers.get_all("Set-Cookie")
    assert [line.split(";")[0] for line in lines] == ["first=1", "second=2"]
    assert "HttpOnly" in lines[0]
    assert "Max-Age=60" in lines[1]


def test_middleware_has_its_say(server):
    headers = server.ask("/cookies").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/fail", "/api/v1/completions/fail"])
def test_a_bug_is_a_500_that_tells_nothing(server, path):
    reply = server.ask(path)
    assert_problem(reply, 500, "server_error")
    assert b"ZeroDivision" not in reply.body


@pytest.mark.parametrize("path", ["/stream", "/v1/stream"])
def test_pieces_arrive_as_they_are_made(server, path):
    with closing(server.start(path)) as connection:
        response = connection.getresponse()
        assert response.read(5) == b"first"
        server.say("go")
        assert response.read() == b"second"


def test_rows_stream_from_one_thread_that_is_not_a_standing_one(server):
    server.ask("/populate")
    lines = server.ask("/rows").body.decode().split("\n")
    names, threads = zip(*(line.split() for line in lines if line), strict=True)
    assert list(names) == sorted(names)
    assert len(names) == 7
    assert set(threads) == {"http-stream_0"}


def test_a_large_file_passes_through_little_memory(server, folder):
    with (folder / "large").open("wb") as file:
        file.truncate(50 * MIB)
    server.ask("/echo")
    before = server.rss_bytes()
    with closing(server.start("/download")) as connection:
        response = connection.getresponse()
        assert response.headers["Content-Length"] == str(50 * MIB)
        received, peak = 0, 0
        while piece := response.read(256 * 1024):
            received += len(piece)
            peak = max(peak, server.rss_bytes())
    assert received == 50 * MIB
    assert peak - before < 10 * MIB


def test_a_client_that_does_not_read_fills_no_memory(server, folder):
    before = server.rss_bytes()
    with server.socket() as client:
        client.sendall(f"GET {server.url('/endless?fast=1')} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        server.heard("paused")
        assert server.rss_bytes() - before < 10 * MIB
    server.heard("stopped")


@pytest.mark.parametrize("path", ["/endless", "/v1/stream"])
def test_a_client_that_leaves_stops_the_stream(server, path):
    with closing(server.start(path)) as connection:
        assert connection.getresponse().read(5)
        assert not server.has_heard("stopped")
    server.heard("stopped")


def test_a_client_that_leaves_cancels_what_it_waits_for(server):
    with closing(server.start("/v1/hold")):
        server.heard("holding")
    server.heard("cancelled")


def test_a_stream_that_fails_is_seen_to_be_incomplete(server):
    with server.socket() as client:
        client.sendall(b"GET /broken HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = read_until_closed(client)
    assert b"begin" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert server.ask("/echo").status == 200


def read_until_closed(client) -> bytes:
    answer = b""
    try:
        while piece := client.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


# Bounds


def test_a_full_queue_refuses_and_recovers(server):
    waiting = [server.start("/hold") for _ in range(4)]
    eventually(lambda: server.ask("/echo").status == 503)
    reply = server.ask("/echo")
    assert_problem(reply, 503, "unavailable")
    assert reply.headers["Retry-After"] == "1"
    server.say("go")
    assert {read(client).body for client in waiting} == {b"held"}
    assert server.ask("/echo").status == 200
    for client in waiting:
        client.close()


def test_slow_readers_take_no_thread_and_are_bounded(server):
    streams = [server.start("/stream") for _ in range(2)]
    responses = [client.getresponse() for client in streams]
    assert server.ask("/echo").status == 200
    assert_problem(server.ask("/stream"), 503, "unavailable")
    server.say("go")
    assert {response.read() for response in responses} == {b"firstsecond"}
    eventually(lambda: server.ask("/stream").status == 200)


def test_waiting_for_a_model_takes_no_thread(server):
    waiting = []
    for _ in range(8):
        # Its middleware needs a thread for a moment: the next one starts when that is done.
        waiting.append(server.start("/v1/hold"))
        eventually(lambda: server.ask("/echo").status == 200)
    server.heard("holding")
    server.say("go")
    assert {read(client).body for client in waiting} == {b"held"}
    for client in waiting:
        client.close()


# Async views, and sync code beside the loop


def test_an_async_view_runs_on_the_loop_with_all_middleware(server):
    reply = server.ask("/api/v1/completions", "POST", b"x" * 70_000)
    assert reply.json() | {"users": 0} == {
        "path": "/api/v1/completions",
        "size": 70_000,
        "thread": "MainThread",
        "user": True,
        "users": 0,
    }
    assert "default-src" in reply.headers["Content-Security-Policy"]
    assert_problem(server.ask("/api/v1/completions", "POST", b"x" * (LIMIT + 1)), 413, "too_large")


def test_what_middleware_writes_after_an_async_view_is_kept(server):
    first = server.ask("/v1/session")
    cookie = first.headers["Set-Cookie"].split(";")[0]
    assert (first.json(), server.ask("/v1/session", Cookie=cookie).json()) == ({"count": 1}, {"count": 2})


def test_a_sync_view_behind_an_async_route_runs_in_a_thread(server):
    assert server.ask("/v1/rendered").body in (b"in http_0", b"in http_1")


@pytest.mark.parametrize("path", ["/echo", "/v1/session"])
def test_middleware_refuses_before_the_view(server, path):
    reply = server.ask(path, Host="elsewhere.example")
    assert (reply.status, "Set-Cookie" in reply.headers) == (400, False)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_a_missing_async_route_is_404(server):
    assert_problem(server.ask("/api/v1/completions/nothing"), 404, "not_found")


def test_async_code_called_from_a_sync_view_runs_on_the_servers_loop(server):
    answers = [server.ask("/bridge").json() for _ in range(4)]
    loops = {tuple(answer[key]) for answer in answers for key in ("first", "second")}
    assert len(loops) == 1
    assert loops.pop()[1] == "MainThread"


def test_static_files_need_no_thread(server):
    waiting = [server.start("/hold") for _ in range(4)]
    reply = server.ask("/static/admin/css/base.css")
    assert (reply.status, reply.headers["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert_problem(server.ask("/static/no.css"), 404, "not_found")
    server.say("go")
    for client in waiting:
        read(client)
        client.close()
