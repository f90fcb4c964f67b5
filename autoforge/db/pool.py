"""Connections that live longer than a request: handed out and taken back without a round trip.

A stock pool asks the server twice a request, `SELECT 1` before and `ROLLBACK` after. Here a
connection that is in no transaction is taken back as it is, and one that was used a moment ago is
handed out after a look at its socket: a connection that PostgreSQL dropped has something to read.
"""

import copy
import os
import select
import threading
import time
from typing import Any

import psycopg
from dj_db_conn_pool.core import pool_container
from django.conf import settings
from django.db import connections
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.pool import QueuePool

_INHERITED: list[Any] = []


class PoolDialect(PGDialect_psycopg):
    """What the pool does to a connection when it comes and goes."""

    supports_statement_cache = True

    def do_rollback(self, dbapi_connection: Any) -> None:
        """End an open transaction; a connection without one costs nothing."""
        connection = dbapi_connection.driver_connection
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.rollback()
        connection.released_at = time.monotonic()

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ask the server whether the connection lives, unless there is no reason to doubt it."""
        if is_rested(dbapi_connection) or has_news(dbapi_connection):
            return bool(super().do_ping(dbapi_connection))  # type: ignore[no-untyped-call]  # SQLAlchemy's
        return True


def is_rested(connection: Any) -> bool:
    """Whether nobody used `connection` for long enough that a firewall may have forgotten it."""
    idle_s = time.monotonic() - getattr(connection, "released_at", 0.0)
    return idle_s > float(settings.DB_POOL_PING_IDLE_S)


def has_news(connection: "psycopg.Connection[Any]") -> bool:
    """Whether something arrived while `connection` was idle: a farewell of the server, or its end."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class ConnectionPool(QueuePool):
    """SQLAlchemy's pool that knows which database it leads to."""

    target: tuple[Any, ...] = ()

    @property
    def limit(self) -> int:
        """The most connections it opens at once."""
        return self.size() + self._max_overflow


def ensure_pool(wrapper: Any) -> None:
    """Make `pool_container[alias]` lead to the wrapper's database; a pool of another one goes."""
    target = target_of(wrapper.settings_dict)
    if leads_to(target, wrapper.alias):
        return
    with pool_container.lock:
        if leads_to(target, wrapper.alias):
            return
        outdated = pool_container.pop(wrapper.alias, None)
        pool_container.put(wrapper.alias, new_pool(wrapper, target))
    if outdated is not None:
        outdated.dispose()


def target_of(settings_dict: dict[str, Any]) -> tuple[Any, ...]:
    """What tells two databases apart: tests change NAME under a living alias."""
    return tuple(settings_dict[key] for key in ("HOST", "PORT", "NAME", "USER"))


def leads_to(target: tuple[Any, ...], alias: str) -> bool:
    """Whether the pool of `alias` exists and opens connections to `target`."""
    return alias in pool_container and pool_container[alias].target == target


def new_pool(wrapper: Any, target: tuple[Any, ...]) -> ConnectionPool:
    """An empty pool with the wrapper's POOL_OPTIONS."""
    # The pool outlives the wrapper's thread, so it opens connections through a wrapper of its own.
    opener = type(wrapper)(copy.deepcopy(wrapper.settings_dict), wrapper.alias)
    options = {key.lower(): value for key, value in wrapper.settings_dict.get("POOL_OPTIONS", {}).items()}
    dialect = PoolDialect(dbapi=psycopg)  # type: ignore[no-untyped-call]  # SQLAlchemy's
    pool = ConnectionPool(opener.open_connection, dialect=dialect, **options)
    pool.target = target
    return pool


def close_pools() -> None:
    """Close what is idle and forget every pool; what is in use is closed when it comes back."""
    with pool_container.lock:
        pools = list(pool_container.values())
        pool_container.clear()
    for pool in pools:
        pool.dispose()


def _forget_inherited() -> None:
    """A forked child shares its parent's sockets: it may neither use nor politely close them."""
    _INHERITED.extend(pool_container.values())
    pool_container.clear()
    pool_container.lock = threading.Lock()
    for wrapper in connections.all(initialized_only=True):
        if wrapper.connection is not None and hasattr(wrapper, "is_pooled"):
            _INHERITED.append(wrapper.connection)
            wrapper.connection = None


os.register_at_fork(after_in_child=_forget_inherited)
