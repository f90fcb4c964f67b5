"""HTTP through real uvicorn and daphne processes."""

from contextlib import closing

import pytest

from tests.autoforge.http_server import ask, assert_problem, eventually, read, read_until_closed

MIB = 1024 * 1024
LIMIT = 2 * MIB


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
