"""Django's PostgreSQL backend with django-prometheus' counters over SQLAlchemy's pool."""

from typing import Any

from dj_db_conn_pool.backends.postgresql.base import DatabaseWrapper as PooledWrapper
from django_prometheus.db.common import DatabaseWrapperMixin


class DatabaseWrapper(DatabaseWrapperMixin, PooledWrapper):
    """The mixin counts connections and queries; the pool lends the connections."""

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        return params
