"""Calls that the budget of an API key pays for: their most is reserved before, their cost settled after."""

import asyncio
from decimal import Decimal

import msgspec

from autoforge.auth import Actor
from autoforge.db.threads import in_db_thread
from autoforge.errors import InvalidInput
from autoforge.spending import reserve, settle
from prompts.llm.pricing import bounded, estimate_usd, has_price, no_price_sentence, prepare
from prompts.llm.providers.base import Completion, Request


class KeyTurn:
    """A call's turn at a key's budget. Entering it raises BudgetSpent, or InvalidInput without a price.

    A call that failed costs nothing; of one that its client broke off, or whose tokens the vendor did
    not count, nobody knows what is billed: it counts with the most it could cost.
    """

    def __init__(self, key_id: int, budget_usd: Decimal, request: Request) -> None:
        self._key_id, self._budget_usd, self._request = key_id, budget_usd, request
        self._reserved = self._cost = Decimal(0)
        self._has_begun = False

    async def __aenter__(self) -> None:
        endpoint, messages, params = self._request.endpoint, self._request.messages, self._request.params
        await prepare(endpoint)
        if not has_price(endpoint):
            raise InvalidInput(f"This key has a budget. {no_price_sentence(endpoint.name)}")
        self._reserved = estimate_usd(endpoint, messages, params)
        reserving = asyncio.ensure_future(
            in_db_thread(reserve)(self._key_id, self._budget_usd, self._reserved)
        )
        try:
            self._month = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The thread reserves all the same: give it back, there will be no call.
            self._month = await reserving
            await self._settle()
            raise

    async def __aexit__(self, kind: object = None, *_: object) -> None:
        if kind is not asyncio.CancelledError or not self._has_begun:
            await self._settle()

    async def _settle(self) -> None:
        if self._cost != self._reserved:
            await in_db_thread(settle)(self._key_id, self._month, self._cost - self._reserved)

    def begin(self, *, for_others: bool) -> None:
        """From now on the vendor may bill it, also if its client leaves."""
        self._has_begun = True

    def answered(self, completion: Completion) -> None:
        self._cost = self._reserved if completion.cost_usd is None else completion.cost_usd


def on_budget(request: Request, actor: Actor) -> tuple[Request, KeyTurn | None]:
    """The request and its turn, as the client wants them; None where the actor's key has no budget.

    A call is shared only by requests with the same key: a refusal is nobody else's.
    """
    if actor.key_id is None or actor.budget_usd is None:
        return request, None
    request = bounded(request)
    turn = KeyTurn(actor.key_id, actor.budget_usd, request)
    return msgspec.structs.replace(request, payer=f"key {actor.key_id}"), turn
