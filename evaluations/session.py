"""One worker's stay with a run, from joining to leaving: lanes, heartbeat, one writer."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings

from evaluations import claims
from evaluations.budget import BudgetSpentError, Lease, UnpaidError
from evaluations.cells import Plan
from evaluations.db_thread import DbThread
from evaluations.execution import CellExecutor
from evaluations.models import RunState, RunWorker
from evaluations.sink import ResultSink
from evaluations.slots import Slots, Turn
from evaluations.source import CellSource
from evaluations.tokens import TokenStream

# While slots change hands, heartbeats follow each other this much faster, at first.
_QUICK_BEATS = 20
# What happens within this time is told in one heartbeat.
_COALESCE_S = 0.02


@dataclass(slots=True)
class _Lane:
    """Executes one cell after the other."""

    turn: Turn
    task: asyncio.Task[None] | None = None


class Session:
    """As many calls as the worker's share allows, and some more lanes than that.

    The lanes that are not calling render, look into the cache and score: the next cell is ready when a
    call ends. Lanes are cheaper than a task for each cell.
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
        self._share = claims.Share(is_live=True, slots=0, part=0)
        self._lanes: dict[int, _Lane] = {}
        self._beat_early = asyncio.Event()
        self._slots = Slots(on_excess=self._beat_early.set)
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
        """Ask no model any more; calls in flight end and are recorded."""
        self._is_stopped = True
        self._source.stop()
        for lane in self._lanes.values():
            if lane.task and not lane.turn.has_begun:
                lane.turn.withdraw()
                lane.task.cancel()
        self._beat_early.set()

    def break_off(self) -> None:
        """Cancel the calls in flight: their cells have no result."""
        for lane in self._lanes.values():
            if lane.task:
                lane.task.cancel()

    async def _take_share(self) -> None:
        """Wait until there is a slot for this worker, or nothing to do for it."""
        await self._beat_once()
        pause_s = settings.RUN_HEARTBEAT_S / _QUICK_BEATS
        while not self._share.slots and not self._is_stopped:
            pause_s = await self._pause(pause_s)
            await self._beat_once()

    async def _beat(self, lanes: asyncio.TaskGroup) -> None:
        quick_s = settings.RUN_HEARTBEAT_S / _QUICK_BEATS
        pause_s = quick_s
        while True:
            is_shifting = self._share.slots < self._share.part
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
        # What is told is given to others: until the answer is here, it must stay true.
        busy = self._slots.hold()
        share = await self._db.insist(claims.beat, self._worker, self._run.concurrency, busy)
        if share.is_live:
            self._share = share
            self._slots.allow(share.slots)
            self._source.expect_lanes(self._lane_count)
        else:
            # A cell that had begun when the run ended still needs a slot for its judge.
            self._slots.allow(max(1, self._share.slots))
            self.stop()

    @property
    def _lane_count(self) -> int:
        """A quarter more than calls: what is done beside a call takes far less time than that."""
        return self._share.slots + self._share.slots // 4 + 1 if self._share.slots else 0

    def _fill(self, lanes: asyncio.TaskGroup) -> None:
        """Start the lanes that are wanted and not running."""
        if not self._source.has_more:
            return
        for number in range(self._lane_count):
            if number not in self._lanes:
                lane = self._lanes[number] = _Lane(Turn(self._slots))
                lane.task = lanes.create_task(self._drive(number, lane))

    async def _drive(self, number: int, lane: _Lane) -> None:
        try:
            while number < self._lane_count and (cell := await self._source.next()):
                lane.turn = Turn(self._slots)
                finished = await self._executor.execute(cell, lane.turn)
                await self._sink.put(finished, done_shard=cell.shard.finish_cell())
                self._look_around()
        except UnpaidError as error:
            self._sink.count_cost(error.cost_usd)
            if isinstance(error, BudgetSpentError):
                await self._db.insist(claims.end_run, self._run.pk, RunState.OVER_BUDGET)
            self.stop()
        finally:
            del self._lanes[number]

    def _look_around(self) -> None:
        """What the last batch has told about the run and those who drain it."""
        if not self._sink.is_run_live:
            self.stop()
        elif self._sink.workers != self._share.workers:
            self._beat_early.set()
