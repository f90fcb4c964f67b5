"""Sessions: how long Redis has them, and that none is alive again which ended while Redis was away."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.management import call_command
from django.test import Client, override_settings
from django.utils import timezone

from autoforge import forgetting
from autoforge.sessions import SessionStore
from autoforge.settings import _local_cache
from tests.own_redis import OwnRedis, eventually, own_redis

__all__ = ["own_redis"]
pytestmark = pytest.mark.django_db(transaction=True)
KEYS = "af:user_sessions:*"


@pytest.fixture
def signed_in(own_redis: OwnRedis) -> Client:
    get_user_model().objects.create_superuser("root", password="a long password")
    client = Client()
    assert client.login(username="root", password="a long password")
    return client


@pytest.fixture
def stored(own_redis: OwnRedis) -> SessionStore:
    """A session that Redis and the database have."""
    store = SessionStore()
    store["step"] = 1
    store.save()
    return store


def fresh(store: SessionStore) -> SessionStore:
    return SessionStore(store.session_key)


def be_back(redis_: OwnRedis) -> None:
    """It answers again, with all that it had, and is asked again."""
    redis_.thaw()
    eventually(lambda: caches["default"].set("x", 1) is True)


def test_redis_has_a_session_for_as_long_as_the_setting_says(signed_in: Client, own_redis: OwnRedis) -> None:
    for _ in range(2):
        (key,) = own_redis.client.keys(KEYS)
        assert 0 < own_redis.client.ttl(key) <= settings.CACHE_TTL_S["user_sessions"] == 3_600
        own_redis.client.flushall()
        assert signed_in.get("/admin/").status_code == 200  # from the database, and into Redis
    assert SessionStore().get_expiry_age() == settings.SESSION_COOKIE_AGE == 14 * 86_400  # of the cookie


def test_a_session_that_ends_sooner_leaves_redis_sooner(stored: SessionStore, own_redis: OwnRedis) -> None:
    stored.set_expiry(60)
    stored.save()
    (key,) = own_redis.client.keys(KEYS)
    assert 0 < own_redis.client.ttl(key) <= 60


@pytest.mark.parametrize("is_known_to_be_away", [True, False])
def test_who_signs_out_while_redis_is_away_stays_signed_out(
    signed_in: Client, own_redis: OwnRedis, is_known_to_be_away: bool
) -> None:
    cookie = signed_in.cookies[settings.SESSION_COOKIE_NAME].value
    own_redis.freeze()
    if is_known_to_be_away:
        assert caches["default"].get("x") is None
    assert signed_in.post("/admin/logout/").status_code == 200
    be_back(own_redis)
    signed_in.cookies[settings.SESSION_COOKIE_NAME] = cookie
    assert signed_in.get("/admin/").status_code == 302
    assert own_redis.client.keys(KEYS) == []


def end(store: SessionStore) -> None:
    store.delete()


def flush(store: SessionStore) -> None:
    store.flush()


def cycle(store: SessionStore) -> None:
    store.cycle_key()


@pytest.mark.parametrize("finish", [end, flush, cycle])
def test_a_key_that_was_given_up_while_redis_was_away_is_unknown(
    finish: Callable[[SessionStore], None], stored: SessionStore, own_redis: OwnRedis
) -> None:
    old = fresh(stored)
    own_redis.freeze()
    finish(stored)
    be_back(own_redis)
    assert old.get("step") is None and not SessionStore().exists(old.session_key)


def test_what_changed_while_redis_was_away_is_not_undone(stored: SessionStore, own_redis: OwnRedis) -> None:
    own_redis.freeze()
    stored["step"] = 2
    stored.save()
    assert fresh(stored)["step"] == 2
    be_back(own_redis)
    assert fresh(stored)["step"] == 2


def test_more_than_can_be_remembered_is_everything(
    stored: SessionStore, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "MAX_UNFORGOTTEN", 2)
    own_redis.freeze()
    for number in range(4):
        SessionStore(f"nobody has this {number}").delete()
    Session.objects.all().delete()  # another process, which has died
    be_back(own_redis)
    assert fresh(stored).get("step") is None


async def test_asked_from_a_coroutine_it_does_the_same(own_redis: OwnRedis) -> None:
    store = SessionStore()
    await store.aset("step", 1)
    await store.asave()
    other = SessionStore(store.session_key)
    assert await other.aget("step") == 1
    (key,) = own_redis.client.keys(KEYS)
    assert own_redis.client.ttl(key) <= 3_600
    await store.adelete()
    assert own_redis.client.keys(KEYS) == []


def test_expired_sessions_are_cleared(stored: SessionStore) -> None:
    expired = SessionStore()
    expired.save()
    Session.objects.filter(pk=expired.session_key).update(expire_date=timezone.now())
    call_command("clearsessions")
    assert [row.pk for row in Session.objects.all()] == [stored.session_key]


def test_without_redis_a_session_is_kept_and_ended_too() -> None:
    local: Any = {name: _local_cache(f"test {name}", 60) for name in settings.CACHES}
    with override_settings(REDIS_URL="", CACHES=local):
        store = SessionStore()
        store["step"] = 1
        store.save()
        Session.objects.all().delete()
        assert fresh(store)["step"] == 1  # from the cache
        other = fresh(store)
        store.delete()
        assert other.get("step") is None


def test_a_cookie_that_spells_nul_is_no_session(client: Client) -> None:
    answer = client.get("/admin/", headers={"cookie": r'sessionid="abcdefgh\000"'})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/login/?next=/admin/")
