"""Fixtures of every test: two projects, their keys, and a client that speaks JSON to the front door."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import hypothesis
import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.db import connection, connections, transaction
from django.test import Client, TransactionTestCase
from django.test.utils import override_settings
from django_redis import get_redis_connection

from autoforge.auth import Actor, key_copies
from autoforge.caching import clear_copies
from autoforge.db.pool import close_pools
from autoforge.models import Project, Role
from autoforge.services import create_api_key
from autoforge.throttling import throttle
from evaluations import executor
from prompts.llm.cache import KEY_PREFIX
from tests.own_redis import PATIENCE_S, own_redis, stoppable_redis

__all__ = ["own_redis", "stoppable_redis"]

# A busy machine is no failure: how long an example takes is measured by the benchmarks.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")
for cache in settings.CACHES.values() if settings.REDIS_URL else ():
    cache["OPTIONS"] |= {"SOCKET_TIMEOUT": PATIENCE_S, "SOCKET_CONNECT_TIMEOUT": PATIENCE_S}
# Nor do queries become more because a test takes longer than a key may be kept.
settings.API_KEY_CACHE_S = 60
# A password's hash is meant to take long. Nobody attacks these.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@dataclass
class Answer:
    """A response that is asserted on in one breath: `api.get(…).expect(200)["items"]`."""

    response: Any

    def expect(self, status: int) -> Any:
        """The decoded body, after checking the status; the raw bytes when it is not JSON."""
        assert self.response.status_code == status, (self.response.status_code, self.body)
        return self.body

    @property
    def body(self) -> Any:
        content = self.response.getvalue() if self.response.streaming else self.response.content
        is_json = "json" in self.response.headers.get("Content-Type", "") and "ndjson" not in str(
            self.response.headers
        )
        return msgspec.json.decode(content) if is_json and content else content

    @property
    def headers(self) -> Any:
        return self.response.headers


class ApiClient:
    """Requests with one API key, through all of Django."""

    def __init__(self, secret: str | None) -> None:
        self._client = Client(raise_request_exception=True)
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def with_headers(self, **headers: str) -> Self:
        """The same caller with more headers; `idempotency_key="x"` sends Idempotency-Key."""
        other = type(self)(None)
        other._headers = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return other

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return Answer(
            self._client.generic(method, path, data, content_type=content_type, headers=self._headers)
        )

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> Answer:
        return self.request("POST", path, body, **kwargs)

    def put(self, path: str, body: Any = None) -> Answer:
        return self.request("PUT", path, body)

    def patch(self, path: str, body: Any = None) -> Answer:
        return self.request("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_newgateway(gateway: Any) -> None:
    """A worker of a parallel run has a Redis database of its own, as it has a PostgreSQL one."""
    if settings.REDIS_URL:
        number = int(gateway.id.removeprefix("gw")) + 1
        url = urlsplit(settings.REDIS_URL)._replace(path=f"/{number}").geturl()
        # Before the worker's Django reads its settings.
        gateway.remote_exec(f"import os; os.environ['REDIS_URL'] = {url!r}").waitclose()


# What migrations fill. Django's own flush empties these too, and fills them again.
FILLED_BY_MIGRATIONS = {"django_content_type", "auth_permission"}


def delete_what_was_written(self: TransactionTestCase) -> None:
    """The end of a test that committed: every table is empty again, much sooner than by TRUNCATE."""
    tables = set(connection.introspection.django_table_names(include_views=False)) - FILLED_BY_MIGRATIONS
    rows = "SELECT '{0}' WHERE EXISTS (SELECT 1 FROM \"{0}\")"
    # Foreign keys are checked at the end of the transaction: the order does not matter.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(rows.format(table) for table in sorted(tables)))
        for (table,) in cursor.fetchall():
            cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """At the end, connections that the asynchronous ORM or the pool keep let the test database go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", delete_what_was_written)
        yield
    # The thread in which the asynchronous ORM works never hears of the end of a request.
    asyncio.run(sync_to_async(connections.close_all)())
    # Nor do threads that have ended: theirs comes back when it is collected.
    gc.collect()
    connections.close_all()
    close_pools()


@pytest.fixture(autouse=True)
def _ended_runs(_django_db_marker: None) -> Iterator[None]:
    """A run that a test has started ends before its rows are deleted: it would work on in the next test."""
    yield
    assert executor.wait_idle(PATIENCE_S), "a run goes on after its test"


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    """Nothing that a process keeps outlives a test."""
    key_copies.clear()
    clear_copies()
    throttle.forget()
    yield
    for cache in caches.all():
        cache.clear()
    if settings.REDIS_URL:
        redis = get_redis_connection("default")
        for answer in redis.scan_iter(match=f"{KEY_PREFIX}*", count=1_000):
            redis.delete(answer)


@pytest.fixture
def project(db: None) -> Project:
    return Project.objects.create(name="acme")


@pytest.fixture
def other_project(db: None) -> Project:
    return Project.objects.create(name="rival")


@pytest.fixture
def actor(project: Project) -> Actor:
    """The operator of `project`."""
    return Actor.system(project)


def client_of(project: Project, role: Role) -> ApiClient:
    """A client with a fresh key of `project`."""
    return ApiClient(create_api_key(project, name=f"test {role.value}", role=role).secret)


@pytest.fixture
def owner(project: Project) -> ApiClient:
    return client_of(project, Role.OWNER)


@pytest.fixture
def api(project: Project) -> ApiClient:
    """An editor of `project`."""
    return client_of(project, Role.EDITOR)


@pytest.fixture
def viewer(project: Project) -> ApiClient:
    return client_of(project, Role.VIEWER)


@pytest.fixture
def stranger(other_project: Project) -> ApiClient:
    """An owner of another project: must get nothing of ours."""
    return client_of(other_project, Role.OWNER)


@pytest.fixture
def nobody() -> ApiClient:
    """No key at all."""
    return ApiClient(None)


@pytest.fixture
def private_endpoints_allowed() -> Iterator[None]:
    """Model endpoints may live on loopback: the fake vendor does."""
    with override_settings(ALLOW_PRIVATE_ENDPOINTS=True):
        yield
