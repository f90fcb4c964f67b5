"""A Redis that one test may stop, freeze and start again, with all of Django's caches in it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from autoforge import settings as project_settings
from autoforge.caching import clear_copies
from autoforge.local_services import ServiceError
from autoforge.local_services.server import Server
from autoforge.local_services.valkey import Valkey
from autoforge.redis import Guard, pool

PATIENCE_S = 20


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
        """It keeps its connections and its data, and answers nobody."""
        self._server.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.process.send_signal(signal.SIGCONT)

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


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """Caches in a Redis of this test's own; it need not wait long for one that hangs."""
    try:
        server = Server.start(Valkey(tmp_path, "secret", is_durable=False))
    except ServiceError as error:
        pytest.skip(str(error))
    try:
        with connected(server, SOCKET_TIMEOUT=0.1, SOCKET_CONNECT_TIMEOUT=0.1) as own:
            yield own
    finally:
        server.process.send_signal(signal.SIGCONT) if not server.has_ended else None
        server.stop()


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until `is_true()`."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)
