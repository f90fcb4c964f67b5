"""A Redis that one test may stop, freeze and start again, with all of Django's caches in it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import override_settings
from django_redis.pool import ConnectionFactory

from autoforge import settings as project_settings
from autoforge.caching import clear_copies
from autoforge.local_services import ServiceError
from autoforge.local_services.server import Server
from autoforge.local_services.valkey import Valkey
from autoforge.redis import Guard, pool

PATIENCE_S = 20
# How long somebody waits for one that hangs. Only then: on a busy machine any answer may take as long.
HANGING_S = 0.1


class OwnRedis:
    """A running server and the client of a spectator."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.url = server.url
        self.client = redis.Redis.from_url(self.url)

    @property
    def guard(self) -> Guard:
        return pool().guard

    def stop(self) -> None:
        """It ends, and forgets everything."""
        self._server.stop()

    def start(self) -> None:
        """It is back on the same port, empty."""
        self._server.revive()
        assert self._server.became_ready()

    def freeze(self) -> None:
        """It keeps its data, and answers nobody."""
        self._server.process.send_signal(signal.SIGSTOP)
        self._wait_at_most(HANGING_S)

    def thaw(self) -> None:
        self._server.process.send_signal(signal.SIGCONT)
        self._wait_at_most(PATIENCE_S)

    def _wait_at_most(self, seconds: float) -> None:
        shared = pool()
        shared.connection_kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        shared.disconnect()
        shared.reset()

    def commands(self) -> int:
        """How many commands it has carried out."""
        return int(self.client.info("stats")["total_commands_processed"])


def caches_in(url: str, **options: Any) -> dict[str, Any]:
    """settings.CACHES as they are with REDIS_URL=`url`."""
    found = {
        name: project_settings._redis_cache(name, settings.CACHE_TTL_S.get(name, 300)) | {"LOCATION": url}
        for name in settings.CACHES
    }
    for cache in found.values():
        cache["OPTIONS"] |= options
    return found


@contextmanager
def connected(server: Server, **options: Any) -> Iterator[OwnRedis]:
    """Django and `server` talk to each other until the block ends."""
    with override_settings(REDIS_URL=server.url, CACHES=caches_in(server.url, **options)):
        own = OwnRedis(server)
        clear_copies()
        try:
            yield own
        finally:
            own.guard.close()
            pool().disconnect()
            own.client.close()
            # The next test has a pool with a guard of its own.
            ConnectionFactory._pools.pop(server.url, None)


@pytest.fixture(scope="session")
def stoppable_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no other process uses."""
    try:
        server = Server.start(Valkey(tmp_path_factory.mktemp("redis"), "secret", is_durable=False))
    except ServiceError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def own_redis(stoppable_redis: Server) -> Iterator[OwnRedis]:
    """Caches in a Redis that one test has for itself, empty at its beginning."""
    server = stoppable_redis
    if server.has_ended:
        server.revive()
        assert server.became_ready()
    try:
        with connected(server, SOCKET_TIMEOUT=PATIENCE_S, SOCKET_CONNECT_TIMEOUT=PATIENCE_S) as own:
            own.client.flushall()
            yield own
    finally:
        if not server.has_ended:
            server.process.send_signal(signal.SIGCONT)


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until `is_true()`."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)
