"""What the gateway says that it took itself."""

import asyncio
from typing import Any

import pytest

from autoforge.models import Project
from prompts.llm import client
from prompts.llm.cache import response_cache
from prompts.services import create_endpoint
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db(transaction=True)
SLOW_S = 0.1


class SlowCache:
    """The responses' cache behind a slow network."""

    async def get(self, key: str) -> Any:
        await asyncio.sleep(SLOW_S)
        return await response_cache().get(key)

    async def put(self, *args: Any) -> None:
        await response_cache().put(*args)


def test_the_look_up_of_a_kept_answer_is_the_gateways_own_work(
    project: Project, api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_endpoint(project, name="sim", provider="simulated", settings={"output": "echo"})
    monkeypatch.setattr(client, "response_cache", SlowCache)
    question = {"model": "sim", "messages": [{"role": "user", "content": "How long does it take?"}]}
    answers = [api.post("/v1/chat/completions", question) for _ in range(2)]
    assert [answer.headers["X-Cache"] for answer in answers] == ["MISS", "HIT"]
    for answer in answers:
        assert float(answer.headers["x-autoforge-overhead-ms"]) >= SLOW_S * 1000
