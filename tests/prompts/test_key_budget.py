"""What a key's budget is charged for a call that its client breaks off."""

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from autoforge.models import ApiKey, KeySpending, Project, Role
from autoforge.services import create_api_key
from autoforge.spending import reserve
from prompts import budget
from prompts.budget import KeyTurn
from prompts.llm.providers.base import Endpoint, Prices, Request

pytestmark = pytest.mark.django_db(transaction=True)

ENDPOINT = Endpoint("p", "m", "openai", "m", prices=Prices(Decimal(1), Decimal(1)))
REQUEST = Request(
    endpoint=ENDPOINT, messages=({"role": "user", "content": "Hi"},), params={"max_tokens": 100}
)


@pytest.fixture
def key(project: Project) -> ApiKey:
    return create_api_key(project, name="key", role=Role.EDITOR, budget_usd=Decimal(1)).key


async def break_off(key: ApiKey, *, has_begun: bool) -> Decimal:
    """What the key has spent when its client has left."""
    turn = KeyTurn(key.pk, Decimal(1), REQUEST)
    with pytest.raises(asyncio.CancelledError):
        async with turn:
            if has_begun:
                turn.begin(for_others=False)
            raise asyncio.CancelledError
    return (await KeySpending.objects.aget(key=key)).spent_usd


async def test_a_call_that_was_never_made_costs_nothing(key: ApiKey) -> None:
    assert await break_off(key, has_begun=False) == 0


async def test_a_call_that_was_broken_off_costs_the_most_it_could(key: ApiKey) -> None:
    assert await break_off(key, has_begun=True) >= Decimal("0.0001")


async def test_who_leaves_while_it_is_reserved_gets_it_back(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, has_left = threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        has_begun.set()
        assert has_left.wait(20)
        return reserve(*args)

    monkeypatch.setattr(budget, "reserve", slowly)
    entering = asyncio.create_task(KeyTurn(key.pk, Decimal(1), REQUEST).__aenter__())
    assert await asyncio.to_thread(has_begun.wait, 20)
    entering.cancel()
    await asyncio.sleep(0)
    has_left.set()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert (await KeySpending.objects.aget(key=key)).spent_usd == 0
