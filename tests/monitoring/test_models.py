"""What model calls cost and save, as the summary tells it."""

from typing import Any

import pytest

from monitoring.summary import installation_summary
from tests.conftest import ApiClient
from tests.fake_vendor import Reply, fake_vendor

# The view looks keys and models up in other threads: they see only what is committed.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("private_endpoints_allowed")]


def models() -> dict[str, Any]:
    return installation_summary()["models"]


def more(now: dict[str, Any], before: dict[str, Any], part: str, name: str) -> float:
    return now[part].get(name, 0) - before[part].get(name, 0)


def test_an_answer_costs_once_and_then_saves_as_much(api: ApiClient):
    with fake_vendor() as vendor:
        prices = {"input_per_mtok": 1_000, "output_per_mtok": 2_000}
        endpoint = {"name": "gpt", "provider": "openai", "model": "m", "base_url": vendor.base_url}
        api.post("/api/v1/models", endpoint | {"prices": prices}).expect(201)
        question = {"messages": [{"role": "user", "content": "What does it cost?"}], "model": "gpt"}
        before = models()
        asked = [api.post("/api/v1/completions", question).expect(200) for _ in range(3)]
        vendor.script(Reply(status=400))
        api.with_headers(cache_control="no-cache").post("/api/v1/completions", question)
    now = models()
    assert [answer["cached"] for answer in asked] == [False, True, True]
    assert now["cost_usd"] - before["cost_usd"] == pytest.approx(0.009)
    assert now["saved_usd"] - before["saved_usd"] == pytest.approx(0.018)
    assert more(now, before, "calls", "ok") == 1
    assert more(now, before, "calls", "invalid_request") == 1
    assert (more(now, before, "cache", "hit"), more(now, before, "cache", "miss")) == (2, 1)
    assert (more(now, before, "tokens", "input"), more(now, before, "tokens", "output")) == (5, 2)
