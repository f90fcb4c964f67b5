"""HTTP through real uvicorn and daphne processes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from asgiref.sync import iscoroutinefunction
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.core.checks import run_checks
from django.db import connection
from django.test.utils import override_settings
from django.urls import URLResolver, get_resolver

from autoforge.asgi import is_async
from autoforge.db.errors import DatabaseUnavailable, PoolExhausted
from autoforge.errors import as_app_error
from autoforge.http import Lifespan
from tests.autoforge.http_server import Server, ask, eventually, read, serve

MIB = 1024 * 1024
LIMIT = 2 * MIB
KINDS = ["uvicorn", "daphne"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers and tests leave each other files, and the servers' migrated SQLite database."""
    folder = tmp_path_factory.mktemp("http")
    environment = os.environ | {"AUTOFORGE_VAR_DIR": str(folder), "DATABASE_URL": ""}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True, env=environment)
    return folder


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


# The end


@pytest.mark.parametrize("kind", KINDS)
def test_requests_in_flight_are_finished_when_the_server_is_stopped(kind, folder):
    with serve(kind, folder, DATABASE_URL="") as server:
        with closing(server.start("/hold")) as plain, closing(server.start("/v1/hold")) as awaited:
            server.heard("holding")
            eventually(lambda: server.ask("/echo").status == 200)
            server.terminate()
            server.say("go")
            assert [read(plain).body, read(awaited).body] == [b"held", b"held"]
        assert server.process.wait(20) in (0, -15)


def test_an_endless_answer_does_not_keep_daphne_alive(folder):
    with serve("daphne", folder, DATABASE_URL="", AUTOFORGE_HTTP_SHUTDOWN="0.2") as server:
        reader = server.start("/endless")
        reader.getresponse().read(5)
        server.terminate()
        server.heard("stopped")
        server.process.wait(20)
        reader.close()


async def test_a_failed_start_is_told_to_the_server():
    async def fail() -> None:
        raise OSError("the port of the model is taken")

    exchange = ApplicationCommunicator(Lifespan(startup=[fail]), {"type": "lifespan"})
    await exchange.send_input({"type": "lifespan.startup"})
    answer = await exchange.receive_output()
    assert answer == {"type": "lifespan.startup.failed", "message": "the port of the model is taken"}


async def test_every_step_of_a_shutdown_runs():
    steps = []

    async def step() -> None:
        steps.append(len(steps))
        raise OSError("no matter")

    exchange = ApplicationCommunicator(Lifespan(shutdown=[step, step]), {"type": "lifespan"})
    for event in ("startup", "shutdown"):
        await exchange.send_input({"type": f"lifespan.{event}"})
        assert await exchange.receive_output() == {"type": f"lifespan.{event}.complete"}
    assert steps == [0, 1]


# What the handlers count on


def routes_of(resolver: URLResolver, prefix: str = "/") -> Iterator[tuple[str, object]]:
    """(path, view) of every route, with "x" for each parameter."""
    for pattern in resolver.url_patterns:
        path = prefix + re.sub("<[^>]+>", "x", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from routes_of(pattern, path)
        else:
            yield path, pattern.callback


def test_exactly_the_async_views_are_awaited_on_the_loop():
    routes = dict(routes_of(get_resolver()))
    assert "/api/v1/completions" in routes
    misplaced = [path for path, view in routes.items() if is_async(path) != iscoroutinefunction(view)]
    assert misplaced == []


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("django.middleware.common.CommonMiddleware", False),
        ("servestatic.middleware.ServeStaticMiddleware", True),
        ("django.views.decorators.csrf.csrf_exempt", True),
    ],
)
def test_middleware_that_one_handler_would_skip_is_refused(path, is_refused):
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, path]):
        messages = [message.msg for message in run_checks()]
    assert any(f"MIDDLEWARE has {path}" in message for message in messages) is is_refused


# PostgreSQL

needs_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="the pool is for PostgreSQL")


@pytest.fixture
def on_postgresql(transactional_db: None, tmp_path: Path) -> Iterator[Server]:
    """A server on the test database, with a single connection for its two threads."""
    where = "{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format_map(connection.settings_dict)
    pool = {"SIZE": "1", "MAX_OVERFLOW": "0", "TIMEOUT": "1"}
    environment = {f"AUTOFORGE_DB_POOL_{name}": value for name, value in pool.items()}
    with serve("uvicorn", tmp_path, DATABASE_URL=f"postgresql://{where}", **environment) as server:
        yield server
        server.say("go")


@pytest.mark.parametrize(
    ("error", "retry_after"), [(PoolExhausted("…"), "1"), (DatabaseUnavailable("…"), "5")]
)
def test_a_database_that_refuses_is_a_503(error, retry_after):
    answer = as_app_error(error)
    assert answer is not None
    assert (answer.status, answer.headers) == (503, {"Retry-After": retry_after})


@needs_postgresql
@pytest.mark.parametrize("path", ["/database", "/api/v1/completions"])
def test_an_exhausted_pool_is_a_503(on_postgresql, path):
    with closing(on_postgresql.start("/slow_database")) as holder:
        on_postgresql.heard("holding")
        reply = on_postgresql.ask(path)
        assert_problem(reply, 503, "unavailable")
        assert reply.headers["Retry-After"] == "1"
        on_postgresql.say("go")
        assert read(holder).body == b"held"
    assert on_postgresql.ask(path).status == 200


@needs_postgresql
def test_every_way_of_answering_gives_its_connection_back(on_postgresql):
    assert on_postgresql.ask("/populate").status == 200
    assert on_postgresql.ask("/rows").body.count(b"http-stream") == 7
    for path in ["/database", "/api/v1/completions", "/v1/session", "/rows"] * 3:
        assert on_postgresql.ask(path).status == 200
        eventually(lambda: on_postgresql.ask("/pool").json()["default"] == 0)
    with closing(on_postgresql.start("/rows")) as leaving:
        leaving.getresponse()
    assert on_postgresql.ask("/database").json() == {"users": 7}


@needs_postgresql
def test_dropped_connections_fail_no_request(on_postgresql):
    for _ in range(3):
        assert on_postgresql.ask("/database").status == 200
        _terminate_connections()


@needs_postgresql
def test_a_connection_dropped_under_a_request_is_a_503(on_postgresql):
    with closing(on_postgresql.start("/interrupted")) as interrupted:
        on_postgresql.heard("holding")
        _terminate_connections()
        on_postgresql.say("go")
        assert_problem(read(interrupted), 503, "unavailable")
    assert on_postgresql.ask("/database").status == 200


def _terminate_connections() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND NOT client_port = ANY(%s)",
            [_own_ports()],
        )
        assert cursor.rowcount >= 1


def _own_ports() -> list[int]:
    """The ends of this process's connections: threads of other tests may hold some."""
    return [each.laddr.port for each in psutil.Process().net_connections("tcp")]


def assert_problem(reply, status: int, code: str) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
    assert (reply.json()["status"], reply.json()["code"]) == (status, code)
