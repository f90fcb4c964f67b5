"""One worker's stay with a run, from joining to leaving: lanes, heartbeat, one writer."""

import asyncio
from contextlib import suppress

from django.conf import settings

from evaluations import claims
from evaluations.budget import BudgetSpentError, Lease, UnpaidError
from evaluations.cells import Plan
from evaluations.db_thread import DbThread
from evaluations.execution import CellExecutor
from evaluations.models import RunState, RunWorker
from evaluations.sink import ResultSink
from evaluations.source import CellSource
from evaluations.tokens import TokenStream

# While lanes change hands, heartbeats follow each other this much faster, at first.
_QUICK_BEATS = 20
# What happens within this time is told in one heartbeat.
_COALESCE_S = 0.02


class Session:
    """A lane executes one cell after the other; as many lanes run as the worker's share allows.

    That is cheaper than a task and a semaphore for each cell.
    """

    def __init__(self, plan: Plan, worker: RunWorker, db: DbThread) -> None:
        run = plan.run
        self._run = run
        self._worker = worker
        self._db = db
        self._sink = ResultSink(worker, db, has_budget=run.budget_usd is not None)
        self._source = CellSource(plan, worker, db)
        self._tokens = TokenStream(run, db)
        self._executor = CellExecutor(plan, Lease(worker, run.budget_usd, db), self._tokens)
        self._share = claims.Share(is_live=True, lanes=0, part=0)
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._beat_early = asyncio.Event()
        self._is_stopped = False

    async def work(self) -> None:
        """Until this worker can claim nothing more, or the run was stopped; all is recorded then."""
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._sink.run())
                helpers = [group.create_task(self._tokens.run())]
                async with asyncio.TaskGroup() as lanes:
                    await self._take_share()
                    helpers.append(group.create_task(self._beat(lanes)))
                    self._fill(lanes)
                for helper in helpers:
                    helper.cancel()
                self._sink.close()
                await writer
        finally:
            await self._source.close()
            await self._sink.write_rest()

    def stop(self) -> None:
        """Begin no more cells."""
        self._is_stopped = True
        self._source.stop()
        self._beat_early.set()

    def break_off(self) -> None:
        """Cancel the cells that are being executed: they have no result."""
        for lane in tuple(self._lanes.values()):
            lane.cancel()

    async def _take_share(self) -> None:
        """Wait until there is a lane for this worker, or nothing to do for it."""
        await self._beat_once()
        pause_s = settings.RUN_HEARTBEAT_S / _QUICK_BEATS
        while self._share.is_live and not self._share.lanes and not self._is_stopped:
            pause_s = await self._pause(pause_s)
            await self._beat_once()

    async def _beat(self, lanes: asyncio.TaskGroup) -> None:
        quick_s = settings.RUN_HEARTBEAT_S / _QUICK_BEATS
        pause_s = quick_s
        while True:
            is_shifting = self._share.lanes < self._share.part
            pause_s = await self._pause(pause_s if is_shifting else settings.RUN_HEARTBEAT_S)
            before = self._share
            await self._beat_once()
            if self._share != before:
                pause_s = quick_s
            self._fill(lanes)

    async def _pause(self, pause_s: float) -> float:
        """Sleep, unless a heartbeat is due earlier. The next pause: longer, up to a quarter heartbeat."""
        # Not wait_for: Python 3.11's loses a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._beat_early.wait()
            await asyncio.sleep(_COALESCE_S)
        self._beat_early.clear()
        return min(pause_s * 1.5, settings.RUN_HEARTBEAT_S / 4)

    async def _beat_once(self) -> None:
        busy = len(self._lanes)
        self._share = await self._db.insist(claims.beat, self._worker, self._run.concurrency, busy)
        self._source.expect_lanes(self._share.lanes)
        if not self._share.is_live:
            self._source.stop()

    def _fill(self, lanes: asyncio.TaskGroup) -> None:
        """Start the lanes that the share allows and that are not running."""
        if not self._source.has_more:
            return
        for number in range(self._share.lanes):
            if number not in self._lanes:
                self._lanes[number] = lanes.create_task(self._lane(number))

    async def _lane(self, number: int) -> None:
        try:
            while number < self._share.lanes and (cell := await self._source.next()):
                finished = await self._executor.execute(cell)
                await self._sink.put(finished, done_shard=cell.shard.finish_cell())
                self._look_around()
        except UnpaidError as error:
            self._sink.count_cost(error.cost_usd)
            self._source.stop()
            if isinstance(error, BudgetSpentError):
                await self._db.insist(claims.end_run, self._run.pk, RunState.OVER_BUDGET)
        finally:
            del self._lanes[number]
            if number >= self._share.lanes:
                self._beat_early.set()  # another worker waits for this lane

    def _look_around(self) -> None:
        """What the last batch has told about the run and those who drain it."""
        if not self._sink.is_run_live:
            self._source.stop()
        elif self._sink.workers != self._share.workers:
            self._beat_early.set()
