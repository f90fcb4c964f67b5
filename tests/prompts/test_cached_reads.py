"""Prompt reads through their caches: quick, never stale for their writers, and each to its own project."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings
from prometheus_client import REGISTRY

from prompts.models import Prompt
from tests.conftest import ApiClient
from tests.own_redis import OwnRedis, eventually, own_redis

__all__ = ["own_redis"]

PROMPT = "/api/v1/prompts/support/greeting"


@pytest.fixture(params=["local", "redis"], autouse=True)
def mode(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[str]:
    """With and without Redis; outside of transactions, in which the caches are passed over."""
    if request.param == "redis":
        request.getfixturevalue("own_redis")
        yield request.param
    else:
        with override_settings(REDIS_URL=""):
            yield request.param


def layer(name: str) -> float:
    labels = {"cache": "prompt_metadata", "layer": name}
    return REGISTRY.get_sample_value("autoforge_cache_reads_total", labels) or 0.0


def test_a_second_read_touches_no_database(
    api: ApiClient, prompt: Prompt, django_assert_num_queries: Any
) -> None:
    first = api.get(f"{PROMPT}?label=latest")
    copies, loads = layer("process"), layer("load")
    with django_assert_num_queries(0):
        second = api.get(f"{PROMPT}?label=latest")
    assert second.expect(200) == first.expect(200)
    assert second.headers["ETag"] == first.headers["ETag"]
    assert (layer("process"), layer("load")) == (copies + 1, loads)


CHANGES: dict[str, tuple[Callable[[ApiClient], Any], Callable[[dict[str, Any]], Any], Any]] = {
    "a version": (
        lambda api: api.post(f"{PROMPT}/versions", {"template": "Hi"}).expect(201),
        lambda read: (read["version"], read["template"]),
        (2, "Hi"),
    ),
    "a label": (
        lambda api: api.put(f"{PROMPT}/labels/production", {"version": 1}).expect(200),
        lambda read: read["labels"],
        ["production", "latest"],
    ),
    "tags": (
        lambda api: api.patch(PROMPT, {"tags": ["new"]}).expect(200),
        lambda read: read["tags"],
        ["new"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_at_once_by_who_made_it(api: ApiClient, prompt: Prompt, change: str) -> None:
    make, look, expected = CHANGES[change]
    before = api.get(PROMPT)
    assert look(before.expect(200)) != expected
    make(api)
    after = api.get(PROMPT)
    assert look(after.expect(200)) == expected
    assert after.headers["ETag"] != before.headers["ETag"]


def test_a_label_that_moves_or_goes_away_takes_its_readers_along(api: ApiClient, prompt: Prompt) -> None:
    api.post(f"{PROMPT}/versions", {"template": "Hi", "labels": ["staging"]}).expect(201)
    by_label, by_number = f"{PROMPT}?label=staging", f"{PROMPT}?version=2"
    assert api.get(by_label).expect(200)["version"] == 2
    assert api.get(by_number).expect(200)["labels"] == ["staging", "latest"]
    api.put(f"{PROMPT}/labels/staging", {"version": 1}).expect(200)
    assert api.get(by_label).expect(200)["version"] == 1
    assert api.get(by_number).expect(200)["labels"] == ["latest"]
    api.delete(f"{PROMPT}/labels/staging").expect(204)
    api.get(by_label).expect(404)


def test_a_deleted_prompt_is_gone_and_one_of_its_name_is_another(owner: ApiClient, prompt: Prompt) -> None:
    owner.get(PROMPT).expect(200)
    owner.delete(PROMPT).expect(204)
    owner.get(PROMPT).expect(404)
    owner.post("/api/v1/prompts", {"name": prompt.name, "type": "text", "template": "New"}).expect(201)
    assert owner.get(PROMPT).expect(200)["template"] == "New"


def test_a_caller_that_has_it_gets_304(api: ApiClient, prompt: Prompt) -> None:
    etag = api.get(PROMPT).headers["ETag"]
    asking = api.with_headers(If_None_Match=etag)
    answer = asking.get(PROMPT)
    assert (answer.expect(304), answer.headers["ETag"]) == (b"", etag)
    assert "RateLimit" in answer.headers
    api.patch(PROMPT, {"tags": ["new"]}).expect(200)
    assert asking.get(PROMPT).expect(200)["tags"] == ["new"]


def test_strangers_get_their_own_prompt_of_that_name_or_none(
    api: ApiClient, stranger: ApiClient, prompt: Prompt
) -> None:
    api.get(PROMPT).expect(200)
    stranger.get(PROMPT).expect(404)
    stranger.post("/api/v1/prompts", {"name": prompt.name, "type": "text", "template": "Theirs"}).expect(201)
    assert stranger.get(PROMPT).expect(200)["template"] == "Theirs"
    assert api.get(PROMPT).expect(200)["template"] == "Hello {{ name }}"


def test_a_read_with_no_cache_passes_over_the_copy_of_the_process(
    api: ApiClient, prompt: Prompt, mode: str
) -> None:
    api.get(PROMPT).expect(200)
    # Another process did this: nobody told this one.
    Prompt.objects.filter(pk=prompt.pk).update(tags=["elsewhere"])
    if mode == "redis":
        caches["prompt_metadata"].delete(f'[{prompt.project_id},"{prompt.name}"]')
    with override_settings(PROCESS_CACHE_S=60):
        assert api.get(PROMPT).expect(200)["tags"] == []
        assert api.with_headers(Cache_Control="no-cache").get(PROMPT).expect(200)["tags"] == ["elsewhere"]
        assert api.get(PROMPT).expect(200)["tags"] == ["elsewhere"]


def test_reads_go_on_while_redis_goes_and_comes(
    api: ApiClient, prompt: Prompt, request: pytest.FixtureRequest, mode: str
) -> None:
    if mode != "redis":
        pytest.skip("there is no Redis to lose")
    own: OwnRedis = request.getfixturevalue("own_redis")
    with override_settings(PROCESS_CACHE_S=0.01):
        for version in range(2, 8):
            if version == 3:
                own.stop()
            if version == 6:
                own.start()
            api.post(f"{PROMPT}/versions", {"template": f"v{version}"}).expect(201)
            for _ in range(10):
                assert api.get(PROMPT).expect(200)["template"] == f"v{version}"
        eventually(lambda: api.get(PROMPT).expect(200) and bool(own.client.keys("af:prompt_metadata:*")))
        from_redis = layer("redis")
        eventually(lambda: api.get(PROMPT).expect(200) and layer("redis") > from_redis)
