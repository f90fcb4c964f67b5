"""Django's PostgreSQL backend with django-prometheus' counters over SQLAlchemy's pool."""

import functools
import time
from typing import Any, cast

import psycopg
from dj_db_conn_pool.backends.postgresql.base import DatabaseWrapper as PooledWrapper
from django_prometheus.db import connection_errors_total, connections_total
from django_prometheus.db.common import DatabaseWrapperMixin, ExportingCursorWrapper
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from autoforge.db.errors import DatabaseUnavailable, PoolExhausted
from autoforge.db.metrics import pool_timeouts, pool_wait
from autoforge.db.pool import ensure_pool


class DatabaseWrapper(DatabaseWrapperMixin, PooledWrapper):
    """The mixin counts connections and queries; the pool lends the connections."""

    is_pooled = True

    def get_connection_params(self) -> dict[str, Any]:
        """Django's parameters, with a cursor that counts."""
        params: dict[str, Any] = super().get_connection_params()
        params["cursor_factory"] = counting_cursor(params["cursor_factory"], self.alias, self.vendor)
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Borrow a connection. Raises PoolExhausted, DatabaseUnavailable."""
        ensure_pool(self)
        started = time.perf_counter()
        try:
            # Past the mixin, which would count every loan as a new connection.
            return super(DatabaseWrapperMixin, self).get_new_connection(conn_params)
        except PoolTimeoutError as error:
            pool_timeouts.labels(self.alias).inc()
            raise PoolExhausted("Every database connection of this process is in use.") from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error)) from error
        finally:
            pool_wait.labels(self.alias).observe(time.perf_counter() - started)

    def open_connection(self) -> Any:
        """Open a connection to the server: what the pool does when it has none to lend."""
        connections_total.labels(self.alias, self.vendor).inc()
        try:
            return self._get_new_connection(self.get_connection_params())
        except Exception:
            connection_errors_total.labels(self.alias, self.vendor).inc()
            raise

    def create_cursor(self, name: str | None = None) -> Any:
        """Django's cursors; the mixin's version speaks psycopg 2."""
        return super(DatabaseWrapperMixin, self).create_cursor(name)

    def _set_autocommit(self, autocommit: bool) -> None:
        """Switch only what differs: a borrowed connection comes in autocommit already."""
        with self.wrap_database_errors:
            connection = self.connection.driver_connection
            if connection.autocommit != autocommit:
                connection.autocommit = autocommit

    def _close(self) -> None:
        """Give the connection back; one that the server dropped is thrown away instead."""
        if self.connection is not None and self.connection.driver_connection.closed:
            self.connection.invalidate()
        else:
            super()._close()


@functools.cache
def counting_cursor(cursor_class: type, alias: str, vendor: str) -> type:
    """`cursor_class` with django-prometheus' counters."""
    return cast("type", ExportingCursorWrapper(cursor_class, alias, vendor))
