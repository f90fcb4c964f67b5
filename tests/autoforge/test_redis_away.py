"""While Redis is away every surface answers from the database, and says in a metric that it does."""

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client import REGISTRY

from autoforge.models import Project
from evaluations import executor
from tests.autoforge.test_query_counts import addresses, grow, grow_elsewhere
from tests.conftest import ApiClient
from tests.own_redis import OwnRedis, eventually, own_redis

__all__ = ["own_redis"]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.REDIS_URL, reason="there is no Redis to lose"),
]
ASKED = {"model": "m0", "messages": [{"role": "user", "content": "x"}]}


def failures() -> float:
    """Commands that Redis did not carry out."""
    name, reasons = "autoforge_redis_failures_total", ("unreachable", "bypassed")
    return sum(REGISTRY.get_sample_value(name, {"reason": each}) or 0.0 for each in reasons)


def ask_everything(api: ApiClient, paths: dict[str, str], number: int) -> None:
    """What is read, written, called and executed; a ticket alone needs a place that all processes see."""
    for path in paths.values():
        api.get(path).expect(200)
    api.post("/api/v1/prompts", {"name": f"n{number}", "type": "text", "template": "{{ q }}"}).expect(201)
    api.post("/api/v1/prompts/folder/p0/versions", {"template": f"v{number} {{{{ q }}}}"}).expect(201)
    api.put("/api/v1/prompts/folder/p0/labels/production", {"version": 1 + number % 2}).expect(200)
    api.post("/api/v1/prompts/folder/p0/render", {"vars": {"q": "x"}}).expect(200)
    api.post("/api/v1/completions", ASKED).expect(200)
    api.post("/v1/chat/completions", ASKED).expect(200)
    api.with_headers(idempotency_key=f"k{number}").post("/api/v1/completions", ASKED).expect(200)
    run = {"prompts": [{"name": f"n{number}"}], "models": ["m0"], "dataset": "folder/d0"}
    started = api.post("/api/v1/runs", run).expect(201)
    assert executor.wait_idle(20)
    assert api.get(f"/api/v1/runs/{started['id']}").expect(200)["state"] == "finished"
    assert Client().get("/admin/login/").status_code == Client().get("/health/live").status_code == 200


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_nothing_fails_and_all_heals(how: str, project: Project, api: ApiClient, own_redis: OwnRedis) -> None:
    grow(project, 0, 2)
    grow_elsewhere(api, 0, 2)
    paths = addresses(project)
    ask_everything(api, paths, 0)
    before = failures()
    own_redis.stop() if how == "stopped" else own_redis.freeze()
    ask_everything(api, paths, 1)
    assert api.post("/api/v1/ws-tickets").expect(503)["code"] == "unavailable"
    assert Client().get("/health/ready").status_code == 503
    assert failures() > before
    own_redis.start() if how == "stopped" else own_redis.thaw()
    eventually(lambda: api.post("/api/v1/ws-tickets").response.status_code == 201)
    ask_everything(api, paths, 2)
    healed = failures()
    ask_everything(api, paths, 3)
    assert failures() == healed
