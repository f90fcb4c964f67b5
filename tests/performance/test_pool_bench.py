"""What a query costs together with borrowing and returning its connection, by pool."""

from collections.abc import Iterator
from typing import Any

import pytest
from dj_db_conn_pool.backends.postgresql.base import DatabaseWrapper as StockPool
from dj_db_conn_pool.core import pool_container
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper as NoPool

from autoforge.db.base import DatabaseWrapper as OurPool

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="the pool is for PostgreSQL"),
    pytest.mark.django_db,
    pytest.mark.benchmark(group="query and release"),
]


@pytest.fixture(params=[NoPool, StockPool, OurPool], ids=["no pool", "stock pool", "our pool"])
def wrapper(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A Django connection of its own to the test database."""
    wrapper = request.param(connection.settings_dict, "benchmarked")
    yield wrapper
    wrapper.close()
    if pool := pool_container.pop("benchmarked", None):
        pool.dispose()


def test_query_and_release(benchmark, wrapper):
    def query_and_release() -> Any:
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            row = cursor.fetchone()
        wrapper.close()
        return row

    assert benchmark(query_and_release) == (1,)
