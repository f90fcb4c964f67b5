"""Requests and a database that is busy, full, or drops its connections."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from django.db import connection

from autoforge.db.errors import DatabaseUnavailable, PoolExhausted
from autoforge.errors import as_app_error
from tests.autoforge.http_server import Server, assert_problem, eventually, read, serve

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
