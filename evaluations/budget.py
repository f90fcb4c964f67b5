"""A run's budget is a hard limit: every call reserves what it may cost, and settles what it did cost."""

import asyncio
from decimal import ROUND_DOWN, ROUND_UP, Decimal

from evaluations.claims import lease_budget, return_budget
from evaluations.db_thread import DbThread
from evaluations.models import RunWorker

# A worker leases this part of the budget at once, so that not every call asks the database.
_SLICES = 50
_POLL_S = 0.2
_SMALLEST_USD = Decimal("1e-9")


class UnpaidError(Exception):
    """A call of a cell cannot be paid. `cost_usd` is what the cell had cost until then."""

    cost_usd = Decimal(0)


class BudgetSpentError(UnpaidError):
    """Not even one more call fits into the run's budget."""


class LeaseLostError(UnpaidError):
    """This worker was given up for dead; what it had leased is with others."""


class Lease:
    """A worker's slice of a run's budget. What is neither reserved nor settled is given back at the end.

    Without a budget nothing is counted and nothing waits.
    """

    def __init__(self, worker: RunWorker, budget_usd: Decimal | None, db: DbThread) -> None:
        self._worker = worker
        self._db = db
        self._budget_usd = budget_usd
        self._slice = (budget_usd or Decimal(0)) / _SLICES
        self._available = Decimal(0)
        self._reservations = 0
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()

    @property
    def is_limited(self) -> bool:
        return self._budget_usd is not None

    async def reserve(self, estimate: Decimal) -> None:
        """Hold `estimate` for a call; waits while others may give something back. Raises UnpaidError."""
        if self._budget_usd is None:
            return
        if estimate > self._available:
            async with self._turn:
                while estimate > self._available:
                    await self._extend(estimate)
        self._available -= estimate
        self._reservations += 1

    def settle(self, estimate: Decimal, cost: Decimal | None) -> None:
        """The call is over: what it did not cost is free again. Its cost leaves the lease with its result."""
        if self._budget_usd is None:
            return
        self._available += estimate - (cost or Decimal(0))
        self._reservations -= 1
        self._settled.set()

    async def _extend(self, estimate: Decimal) -> None:
        missing = (estimate - self._available).quantize(_SMALLEST_USD, ROUND_UP)
        for amount in dict.fromkeys((max(missing, self._slice), missing)):
            is_leased = await self._db(lease_budget, self._worker, amount)
            if is_leased is None:
                raise LeaseLostError
            if is_leased:
                self._available += amount
                return
        await self._wait_for_others()

    async def _wait_for_others(self) -> None:
        """Until a call of ours has settled; with none in flight, until other workers give back theirs."""
        self._settled.clear()
        if self._reservations:
            await self._settled.wait()
            return
        idle, self._available = self._available.quantize(_SMALLEST_USD, ROUND_DOWN), Decimal(0)
        if not await self._db(return_budget, self._worker, max(idle, Decimal(0))):
            raise BudgetSpentError
        await asyncio.sleep(_POLL_S)
