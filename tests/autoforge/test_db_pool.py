"""The connection pool against a real PostgreSQL: bounds, cost, lost connections, forks."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from dj_db_conn_pool.core import pool_container
from django.core.checks import run_checks
from django.db import OperationalError, close_old_connections, connection, transaction
from django.test.utils import override_settings
from prometheus_client import REGISTRY

from autoforge.db.errors import DatabaseUnavailable, PoolExhausted
from autoforge.db.metrics import pool_status, sample_pools
from autoforge.models import Project

pytestmark = [
    pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning"),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="the pool is for PostgreSQL"),
    pytest.mark.django_db,
]
OPTIONS = {"POOL_SIZE": 2, "MAX_OVERFLOW": 1, "TIMEOUT": 0.05, "RECYCLE": 3600, "PRE_PING": True}
PING = ";"


class Pool:
    """A pool of its own on the test database, and an observer that is not part of it."""

    def __init__(self, **options: Any) -> None:
        self.alias = f"pool-{uuid4().hex[:12]}"
        base = connection.settings_dict
        self.settings = base | {
            "POOL_OPTIONS": OPTIONS | options,
            "OPTIONS": base["OPTIONS"] | {"application_name": self.alias},
        }
        self.wrappers: list[Any] = []

    def borrow(self, **changes: Any) -> Any:
        """A Django connection as another thread would have it."""
        wrapper = type(connection._connections[connection._alias])(self.settings | changes, self.alias)
        self.wrappers.append(wrapper)
        wrapper.ensure_connection()
        return wrapper

    def backends(self) -> list[tuple[int, str, str]]:
        """(pid, state, last statement) of this pool's connections, as the server sees them."""
        with connection.cursor() as cursor:
            # The server shows one transaction the same picture again unless asked for a new one.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = %s", [self.alias]
            )
            return cursor.fetchall()

    def terminate_all(self) -> None:
        """Let the server drop every connection, and wait until it has."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
                [self.alias],
            )

    def close(self) -> None:
        for wrapper in self.wrappers:
            wrapper.close()
        if pool := pool_container.pop(self.alias, None):
            pool.dispose()


@pytest.fixture
def new_pool() -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def make(**options: Any) -> Pool:
        pools.append(Pool(**options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def pid_of(wrapper: Any) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.01)


# What each setting does


def test_size_and_overflow_bound_the_connections(new_pool):
    pool = new_pool(POOL_SIZE=2, MAX_OVERFLOW=1)
    borrowed = [pool.borrow() for _ in range(3)]
    with pytest.raises(PoolExhausted):
        pool.borrow()
    assert len(pool.backends()) == 3
    for wrapper in borrowed:
        wrapper.close()
    eventually(lambda: len(pool.backends()) == 2)
    assert pool_status()[pool.alias].idle == 2


@pytest.mark.parametrize("timeout_s", [0.05, 0.4])
def test_the_timeout_is_how_long_a_request_waits(new_pool, timeout_s):
    pool = new_pool(POOL_SIZE=1, MAX_OVERFLOW=0, TIMEOUT=timeout_s)
    pool.borrow()
    started = time.monotonic()
    with pytest.raises(PoolExhausted):
        pool.borrow()
    assert timeout_s <= time.monotonic() - started < timeout_s + 5


@pytest.mark.parametrize(("recycle_s", "is_replaced"), [(0, True), (3600, False)])
def test_recycle_replaces_connections_that_are_too_old(new_pool, recycle_s, is_replaced):
    pool = new_pool(RECYCLE=recycle_s)
    wrapper = pool.borrow()
    first = pid_of(wrapper)
    wrapper.close()
    assert (pid_of(pool.borrow()) != first) is is_replaced


def test_without_pre_ping_a_lost_connection_is_lent_out(new_pool):
    pool = new_pool(PRE_PING=False)
    pool.borrow().close()
    pool.terminate_all()
    with pytest.raises(OperationalError):
        pid_of(pool.borrow())


# What a loan costs


def test_a_recent_connection_is_lent_without_a_statement(new_pool):
    pool = new_pool()
    wrapper = pool.borrow()
    wrapper.cursor().execute("SELECT 'the last statement'")
    wrapper.close()
    pool.borrow()
    [(_, state, statement)] = pool.backends()
    assert (state, statement) == ("idle", "SELECT 'the last statement'")


def test_a_rested_connection_is_pinged(new_pool):
    pool = new_pool()
    wrapper = pool.borrow()
    wrapper.cursor().execute("SELECT 'the last statement'")
    wrapper.close()
    with override_settings(DB_POOL_PING_IDLE_S=-1):
        pool.borrow()
    [(_, _, statement)] = pool.backends()
    assert statement == PING


def test_an_open_transaction_ends_when_its_connection_comes_back(new_pool):
    pool = new_pool()
    wrapper = pool.borrow()
    wrapper.set_autocommit(False)
    wrapper.cursor().execute("CREATE TABLE never_committed ()")
    wrapper.close()
    [(_, state, statement)] = pool.backends()
    assert (state, statement) == ("idle", "ROLLBACK")
    borrowed = pool.borrow()
    assert borrowed.get_autocommit()
    assert "never_committed" not in borrowed.introspection.table_names()


# Connections that PostgreSQL dropped


def test_dropped_connections_are_replaced_without_a_failed_query(new_pool):
    pool = new_pool(POOL_SIZE=3)
    borrowed = [pool.borrow() for _ in range(3)]
    lost = {pid_of(wrapper) for wrapper in borrowed}
    for wrapper in borrowed:
        wrapper.close()
    pool.terminate_all()
    with override_settings(DB_POOL_PING_IDLE_S=3600):
        found = {pid_of(pool.borrow()) for _ in range(3)}
    assert len(lost) == len(found) == 3
    assert not lost & found


def test_a_connection_that_breaks_in_use_is_thrown_away_quietly(new_pool, caplog):
    pool = new_pool(POOL_SIZE=1, MAX_OVERFLOW=0)
    wrapper = pool.borrow()
    pool.terminate_all()
    with pytest.raises(OperationalError):
        pid_of(wrapper)
    wrapper.close_if_unusable_or_obsolete()
    assert pid_of(wrapper)
    assert pool_status()[pool.alias].in_use == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_process_stuck_in_a_transaction_holds_up_nobody_for_long(new_pool):
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("30s",)


def test_a_server_that_is_down_is_unavailable_and_takes_no_slot(new_pool):
    pool = new_pool(POOL_SIZE=1, MAX_OVERFLOW=0)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            pool.borrow(HOST="127.0.0.1", PORT="1")
    assert pool_status()[pool.alias].in_use == 0


# What callers and operators see


def test_the_metrics_say_how_the_pool_is_doing(new_pool):
    pool = new_pool(POOL_SIZE=1, MAX_OVERFLOW=1)
    first, _ = pool.borrow(), pool.borrow()
    with pytest.raises(PoolExhausted):
        pool.borrow()
    sample_pools()
    assert metric("autoforge_db_pool_connections", alias=pool.alias, state="in_use") == 2
    assert metric("autoforge_db_pool_connections", alias=pool.alias, state="overflow") == 1
    assert metric("autoforge_db_pool_limit", alias=pool.alias) == 2
    assert metric("autoforge_db_pool_wait_seconds_count", alias=pool.alias) == 3
    assert metric("autoforge_db_pool_timeouts_total", alias=pool.alias) == 1
    first.close()
    sample_pools()
    assert metric("autoforge_db_pool_connections", alias=pool.alias, state="in_use") == 1


def test_only_real_connections_count_as_new_and_queries_are_counted(new_pool):
    pool = new_pool()
    for _ in range(3):
        wrapper = pool.borrow()
        wrapper.cursor().execute("SELECT 1")
        wrapper.close()
    labels = {"alias": pool.alias, "vendor": "postgresql"}
    assert metric("autoforge_django_db_new_connections_total", **labels) == 1
    assert metric("autoforge_django_db_execute_total", **labels) == 3


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


# Django on top of it


def test_the_test_database_is_the_one_we_are_connected_to():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == (connection.settings_dict["NAME"],)
    assert connection.settings_dict["NAME"].startswith("test_")


def test_a_changed_database_name_is_followed(new_pool):
    pool = new_pool()
    pool.borrow().close()
    with pool.borrow(NAME="postgres").cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("postgres",)


def test_rows_come_through_a_server_side_cursor(django_assert_num_queries):
    Project.objects.bulk_create(Project(name=f"p{number}") for number in range(25))
    names = {project.name for project in Project.objects.iterator(chunk_size=10)}
    assert len(names) == 25


def test_a_failed_block_leaves_nothing():
    with suppress(ZeroDivisionError), transaction.atomic():
        Project.objects.create(name="half")
        raise ZeroDivisionError
    assert not Project.objects.filter(name="half").exists()


@pytest.mark.django_db(transaction=True)
def test_threads_have_connections_of_their_own_and_give_them_back():
    pids: list[int] = []
    connection.ensure_connection()
    before = pool_status()["default"].in_use
    together = threading.Barrier(2)

    def work() -> None:
        pids.append(pid_of(connection))
        together.wait(10)
        close_old_connections()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({*pids, pid_of(connection)}) == 3
    assert pool_status()["default"].in_use == before


def test_a_forked_child_leaves_its_parents_connections_alone(new_pool):
    pool = new_pool()
    wrapper = pool.borrow()
    mine = pid_of(wrapper)
    pool.borrow().close()
    child = os.fork()
    if child == 0:
        # Exceptions must not reach pytest twice: the exit code is the verdict.
        os._exit(0 if has_fresh_pool(pool, mine) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pid_of(wrapper) == mine
    assert pool_status()[pool.alias].idle == 1


def has_fresh_pool(pool: Pool, parent_pid: int) -> bool:
    """Whether this process starts without connections and gets one of its own."""
    with suppress(Exception):
        was_empty = pool_status() == {} and connection.connection is None
        return was_empty and pid_of(pool.borrow()) != parent_pid
    return False


# System checks


def mistakes(**changes: Any) -> list[str]:
    database = connection.settings_dict | {"ENGINE": "autoforge.db"} | changes
    with override_settings(DATABASES={"default": database}):
        return [message.msg for message in run_checks() if "DATABASES" in message.msg]


def test_sound_settings_pass():
    assert mistakes() == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OPTIONS": {"pool": True}}, "OPTIONS['pool']"),
        ({"POOL_OPTIONS": {"pool_size": 5}}, "pool_size"),
        ({"POOL_OPTIONS": {"POOL_SIZE": 0}}, "POOL_SIZE"),
        ({"CONN_MAX_AGE": 60}, "CONN_MAX_AGE"),
    ],
)
def test_settings_that_break_the_pool_are_refused(changes, named):
    [sentence] = mistakes(**changes)
    assert named in sentence


@pytest.mark.parametrize(("processes", "is_warned"), [(1, False), (1000, True)])
def test_pools_larger_than_the_server_are_reported(processes, is_warned):
    with override_settings(WEB_PROCESSES=processes):
        messages = [message.msg for message in run_checks(databases=["default"])]
    assert any("max_connections" in message for message in messages) is is_warned
