"""What a cached prompt read costs, and what counting a request costs, inside one process."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from autoforge.auth import Actor
from autoforge.http.answers import Answer
from autoforge.http.handlers import SyncHandler
from autoforge.models import Project, Role
from autoforge.services import create_api_key
from autoforge.throttling import Policy, throttle
from prompts import services
from prompts.caching import read_prompt
from tests.own_redis import own_redis

__all__ = ["own_redis"]

LAYERS = {"a copy in the process": {}, "Redis": {"PROCESS_CACHE_S": 0.0}, "the database": {"REDIS_URL": ""}}


@pytest.fixture
def prompt(transactional_db: None, project: Project) -> str:
    version = services.create_prompt(
        project,
        name="support/greeting",
        type="text",
        template="Hello {{ name }}, thank you for your message. " * 20,
        labels=["production"],
        actor=Actor.system(project),
    )
    return version.prompt.name


@pytest.mark.benchmark(group="prompt read")
@pytest.mark.parametrize("layer", LAYERS)
def test_read(benchmark: Any, own_redis: Any, project: Project, prompt: str, layer: str) -> None:
    options = LAYERS[layer] | ({"PROCESS_CACHE_S": 0.0} if layer == "the database" else {})
    with override_settings(**options):
        kept = benchmark(read_prompt, project, prompt, label="production")
    assert b"Hello" in kept.body


@pytest.mark.benchmark(group="prompt read over HTTP, without the server")
@pytest.mark.parametrize("per_min", [0, 100_000_000], ids=["no limit", "limited"])
def test_request(benchmark: Any, own_redis: Any, project: Project, prompt: str, per_min: int) -> None:
    secret = create_api_key(project, name="k", role=Role.VIEWER, rate_limit_per_min=per_min).secret
    handler = SyncHandler()
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1/prompts/{prompt}",
        "query_string": b"label=production",
        "headers": [(b"host", b"testserver"), (b"authorization", f"Bearer {secret}".encode())],
    }

    def ask() -> Any:
        return handler.respond(dict(scope), io.BytesIO())

    answer = benchmark(ask)
    assert isinstance(answer, Answer) and answer.status == 200


@pytest.fixture(params=["Redis", "this process"])
def counters(request: pytest.FixtureRequest, own_redis: Any) -> Iterator[None]:
    with override_settings(**({} if request.param == "Redis" else {"REDIS_URL": ""})):
        yield


@pytest.mark.benchmark(group="counting a request")
@pytest.mark.parametrize("pace", ["busy", "slow"])
def test_count(benchmark: Any, counters: None, monkeypatch: pytest.MonkeyPatch, pace: str) -> None:
    """A busy caller spends leases of 1 % of the limit; for a slow one every request asks the counters."""
    policy = Policy("key", "1", 100_000_000)
    if pace == "slow":
        monkeypatch.setattr("autoforge.throttling.LEASE_S", 0.0)
    ask: Callable[[], Any] = lambda: throttle.spend(policy) or throttle.ask(policy)  # noqa: E731
    assert benchmark(ask).wait_s is None
