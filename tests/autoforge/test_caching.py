"""Caches: every setting reaches the connection, nothing stale stays, a Redis that is away hurts nobody."""

import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import transaction
from django.test import Client, override_settings
from prometheus_client import REGISTRY
from redis.exceptions import TimeoutError as RedisTimeout

from autoforge import redis
from autoforge.caching import ReadThrough, read_once
from autoforge.copies import Kept
from tests.own_redis import PATIENCE_S, OwnRedis, eventually, own_redis

__all__ = ["own_redis"]

GROUP = (1, "support/greeting")
BY_LABEL = ("production", None)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def failures(reason: str) -> float:
    return counted("autoforge_redis_failures_total", reason=reason)


@pytest.fixture
def no_transaction(transactional_db: None) -> None:
    """Inside of a transaction the caches are passed over."""


@pytest.fixture(params=["local", "redis"])
def reads(request: pytest.FixtureRequest, no_transaction: None) -> Iterator[ReadThrough]:
    """With and without Redis."""
    if request.param == "redis":
        request.getfixturevalue("own_redis")
        yield ReadThrough("prompt_metadata")
    else:
        with override_settings(REDIS_URL=""):
            yield ReadThrough("prompt_metadata")


class Row:
    """What a database would hold; counts how often it was read."""

    def __init__(self, value: bytes = b"v1") -> None:
        self.value = value
        self.loads = 0

    def load(self) -> bytes:
        self.loads += 1
        return self.value


class TestSettings:
    """What settings.py says is what the connection does."""

    def test_the_pool_and_its_connections(self, own_redis: OwnRedis) -> None:
        caches["default"].set("a", "b")
        shared = redis.pool()
        connection = shared.get_connection()
        try:
            assert shared.max_connections == settings.REDIS_MAX_CONNECTIONS == 50
            assert connection.health_check_interval == settings.REDIS_HEALTH_CHECK_INTERVAL_S == 30
            assert RedisTimeout in connection.retry._supported_errors
            assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connection._sock.gettimeout() == connection.socket_connect_timeout == PATIENCE_S
        finally:
            shared.release(connection)

    @pytest.mark.parametrize("name", ["default", "user_sessions", "prompt_metadata", "evaluation_results"])
    def test_every_cache_has_its_time_to_live_and_no_pickle(self, own_redis: OwnRedis, name: str) -> None:
        assert caches[name].set("key", ["x" * 100, b"bytes"])
        key = f"af:{name}:1:key"
        assert 0 <= settings.CACHE_TTL_S.get(name, 300) - own_redis.client.ttl(key) <= 5
        assert msgpack.loads(zlib.decompress(own_redis.client.get(key))) == ["x" * 100, b"bytes"]
        assert caches[name].client.get_client().connection_pool is redis.pool()

    def test_the_production_timeout_is_short(self) -> None:
        from autoforge.settings import _redis_cache

        options = _redis_cache("default", 1)["OPTIONS"]
        assert options["SOCKET_TIMEOUT"] == options["SOCKET_CONNECT_TIMEOUT"] == settings.CACHE_TIMEOUT_S

    def test_clearing_one_cache_leaves_the_rest_of_redis_alone(self, own_redis: OwnRedis) -> None:
        own_redis.client.set("celery", "a task")
        caches["user_sessions"].set("kept", 1)
        caches["prompt_metadata"].set_many({str(number): number for number in range(20)})
        caches["prompt_metadata"].clear()
        assert sorted(own_redis.client.keys()) == [b"af:user_sessions:1:kept", b"celery"]


class TestSessions:
    """cached_db on `user_sessions`."""

    @pytest.fixture
    def signed_in(self, no_transaction: None, own_redis: OwnRedis) -> Client:
        get_user_model().objects.create_superuser("root", password="a long password")
        client = Client()
        assert client.login(username="root", password="a long password")
        return client

    def test_a_session_is_in_its_cache_and_outlives_it(self, signed_in: Client, own_redis: OwnRedis) -> None:
        assert own_redis.client.keys("af:user_sessions:*")
        own_redis.client.flushall()
        assert signed_in.get("/admin/").status_code == 200

    def test_a_session_outlives_redis(self, signed_in: Client, own_redis: OwnRedis) -> None:
        own_redis.stop()
        assert signed_in.get("/admin/").status_code == 200
        assert Client().login(username="root", password="a long password")


class TestRedisAway:
    """It is counted, bypassed at once, and found again."""

    def test_after_one_failure_nobody_asks_until_it_answers(self, own_redis: OwnRedis) -> None:
        cache = caches["default"]
        cache.set("a", 1)
        own_redis.freeze()
        unreachable, bypassed = failures("unreachable"), failures("bypassed")
        assert [cache.get("a", "nothing") for _ in range(50)] == ["nothing"] * 50
        assert failures("unreachable") == unreachable + 1
        assert failures("bypassed") >= bypassed + 49
        assert cache.set("b", 1) is None and cache.get_many(["a"]) == {} and cache.delete("a") is None
        own_redis.thaw()
        eventually(lambda: cache.get("a") == 1)

    def test_a_restart_heals_by_itself(self, own_redis: OwnRedis) -> None:
        cache = caches["default"]
        cache.set("a", 1)
        own_redis.stop()
        assert cache.get("a") is None
        own_redis.start()
        eventually(lambda: cache.set("a", 2) is True)
        assert cache.get("a") == 2

    def test_a_command_that_redis_refuses_is_counted_and_does_not_count_as_away(
        self, own_redis: OwnRedis
    ) -> None:
        before = failures("refused")
        own_redis.client.rpush("af:default:1:list", 1)
        assert caches["default"].get("list", "nothing") == "nothing"
        assert failures("refused") == before + 1
        assert caches["default"].set("a", 1) is True


class TestReadThrough:
    """One load serves many, and a change is seen."""

    def test_it_loads_once_and_again_when_told_to_forget(self, reads: ReadThrough) -> None:
        row = Row()
        first = reads.get(GROUP, BY_LABEL, row.load)
        assert first == Kept.of(b"v1") == reads.get(GROUP, BY_LABEL, row.load)
        assert row.loads == 1
        row.value = b"v2"
        assert reads.get(GROUP, BY_LABEL, row.load).body == b"v1"
        reads.forget(GROUP)
        assert reads.get(GROUP, BY_LABEL, row.load) == Kept.of(b"v2")

    def test_what_is_forgotten_is_the_group_with_all_its_selectors(self, reads: ReadThrough) -> None:
        row, other = Row(), Row()
        for selector in (BY_LABEL, (None, 1)):
            reads.get(GROUP, selector, row.load)
        reads.get((2, "support/greeting"), BY_LABEL, other.load)
        reads.forget(GROUP)
        for selector in (BY_LABEL, (None, 1)):
            reads.get(GROUP, selector, row.load)
        reads.get((2, "support/greeting"), BY_LABEL, other.load)
        assert (row.loads, other.loads) == (4, 1)

    def test_a_hot_read_asks_nobody(self, own_redis: OwnRedis, no_transaction: None) -> None:
        reads, row = ReadThrough("prompt_metadata"), Row()
        reads.get(GROUP, BY_LABEL, row.load)
        before = own_redis.commands()
        with override_settings(PROCESS_CACHE_S=60):
            reads.get(GROUP, BY_LABEL, row.load, fresh=True)
            asked = own_redis.commands()
            for _ in range(100):
                reads.get(GROUP, BY_LABEL, row.load)
        # INFO counts itself.
        assert (asked - before, own_redis.commands() - asked) == (2, 1)
        assert row.loads == 1

    def test_another_process_is_behind_for_less_than_a_second(
        self, own_redis: OwnRedis, no_transaction: None
    ) -> None:
        here, there, row = ReadThrough("prompt_metadata"), ReadThrough("prompt_metadata"), Row()
        for each in (here, there):
            each.get(GROUP, BY_LABEL, row.load)
        assert row.loads == 1
        row.value = b"v2"
        here.forget(GROUP)
        assert here.get(GROUP, BY_LABEL, row.load).body == b"v2"
        assert there.get(GROUP, BY_LABEL, row.load, fresh=True).body == b"v2"
        time.sleep(1)
        assert there.get(GROUP, BY_LABEL, row.load).body == b"v2"
        assert row.loads == 2

    @pytest.mark.parametrize("has_generation", [True, False])
    def test_a_value_loaded_before_a_commit_and_stored_after_it_is_never_answered(
        self, own_redis: OwnRedis, no_transaction: None, has_generation: bool
    ) -> None:
        reader, row = ReadThrough("prompt_metadata"), Row()
        if has_generation:
            reader.get(GROUP, (None, 7), row.load)
        has_loaded, may_store = threading.Event(), threading.Event()

        def slowly() -> bytes:
            loaded = row.load()
            has_loaded.set()
            assert may_store.wait(20)
            return loaded

        with ThreadPoolExecutor(1) as thread:
            slow = thread.submit(reader.get, GROUP, BY_LABEL, slowly)
            assert has_loaded.wait(20)
            row.value = b"v2"
            ReadThrough("prompt_metadata").forget(GROUP)  # another process commits
            may_store.set()
            assert slow.result().body == b"v1"
        third = ReadThrough("prompt_metadata")
        assert third.get(GROUP, BY_LABEL, row.load).body == b"v2"
        assert reader.get(GROUP, BY_LABEL, row.load, fresh=True).body == b"v2"

    def test_the_process_that_commits_never_answers_the_old_value_again(self, reads: ReadThrough) -> None:
        row = Row()
        has_loaded, may_store = threading.Event(), threading.Event()

        def slowly() -> bytes:
            loaded = row.load()
            has_loaded.set()
            assert may_store.wait(20)
            return loaded

        with ThreadPoolExecutor(1) as thread:
            slow = thread.submit(reads.get, GROUP, BY_LABEL, slowly)
            assert has_loaded.wait(20)
            row.value = b"v2"
            reads.forget(GROUP)
            # It neither joins the slow read nor finds a copy of it.
            assert reads.get(GROUP, BY_LABEL, row.load).body == b"v2"
            may_store.set()
            slow.result()
        assert reads.get(GROUP, BY_LABEL, row.load).body == b"v2"

    def test_what_is_forgotten_while_redis_hangs_is_not_answered_when_it_is_back(
        self, own_redis: OwnRedis, no_transaction: None
    ) -> None:
        reads, row = ReadThrough("prompt_metadata"), Row()
        reads.get(GROUP, BY_LABEL, row.load)
        own_redis.freeze()
        assert caches["default"].get("x") is None
        row.value = b"v2"
        reads.forget(GROUP)  # is not even sent
        assert reads.get(GROUP, BY_LABEL, row.load).body == b"v2"
        own_redis.thaw()
        eventually(lambda: caches["prompt_metadata"].set("x", 1) is True)
        assert ReadThrough("prompt_metadata").get(GROUP, BY_LABEL, row.load).body == b"v2"

    def test_a_transaction_neither_trusts_nor_feeds_the_cache(self, reads: ReadThrough) -> None:
        row = Row()
        reads.get(GROUP, BY_LABEL, row.load)
        with transaction.atomic():
            row.value = b"never committed"
            assert reads.get(GROUP, BY_LABEL, row.load).body == b"never committed"
        assert reads.get(GROUP, BY_LABEL, row.load).body == b"v1"

    def test_a_stampede_is_one_load(self, reads: ReadThrough) -> None:
        row, gate = Row(), threading.Barrier(8)

        def slow() -> bytes:
            time.sleep(0.2)
            return row.load()

        def read() -> Kept:
            gate.wait()
            return reads.get(GROUP, BY_LABEL, slow)

        with ThreadPoolExecutor(8) as threads:
            answers = [future.result() for future in [threads.submit(read) for _ in range(8)]]
        assert answers == [Kept.of(b"v1")] * 8
        assert row.loads == 1

    def test_an_error_is_everybodys_and_nobodys_afterwards(self, reads: ReadThrough) -> None:
        def fail() -> bytes:
            raise LookupError("no such prompt")

        with pytest.raises(LookupError):
            reads.get(GROUP, BY_LABEL, fail)
        assert reads.get(GROUP, BY_LABEL, Row().load).body == b"v1"


def read(key: str, load: Callable[[], bytes], **options: Any) -> bytes:
    options = {"load_s": 20, "keep": lambda: True} | options
    return read_once("evaluation_results", key, load, **options)


class TestReadOnce:
    """Reports: loaded by one process, kept if they may be."""

    def test_it_is_loaded_once(self, own_redis: OwnRedis) -> None:
        row = Row()
        assert [read("k", row.load), read("k", row.load)] == [b"v1", b"v1"]
        assert row.loads == 1
        assert own_redis.client.keys("*:lock") == []

    def test_what_may_not_be_kept_is_not(self, own_redis: OwnRedis) -> None:
        row = Row()
        assert [read("k", row.load, keep=lambda: False) for _ in range(2)] == [b"v1", b"v1"]
        assert row.loads == 2

    def test_another_process_that_is_at_it_is_waited_for(self, own_redis: OwnRedis) -> None:
        assert caches["evaluation_results"].add("k:lock", "")
        row = Row()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(read, "k", row.load)
            time.sleep(0.1)
            caches["evaluation_results"].set("k", b"made elsewhere")
            assert waiting.result(20) == b"made elsewhere"
        assert row.loads == 0

    def test_another_process_that_died_at_it_is_not_waited_for_forever(self, own_redis: OwnRedis) -> None:
        assert caches["evaluation_results"].add("k:lock", "")
        assert read("k", Row().load, load_s=0.1) == b"v1"

    def test_without_redis_it_is_loaded(self, own_redis: OwnRedis) -> None:
        own_redis.stop()
        row = Row()
        assert [read("k", row.load), read("k", row.load)] == [b"v1", b"v1"]
        assert row.loads == 2

    def test_a_failed_load_frees_the_way(self, own_redis: OwnRedis) -> None:
        def fail() -> bytes:
            raise ValueError

        with pytest.raises(ValueError):
            read("k", fail)
        assert read("k", Row().load) == b"v1"
