"""Drains a run: claims its shards until none is left, and keeps its share of the concurrency busy."""

import asyncio
import logging
from uuid import UUID

from django.conf import settings

from evaluations import claims
from evaluations.budget import BudgetSpentError, Lease
from evaluations.cells import Plan
from evaluations.claims import Step
from evaluations.db_thread import DbThread
from evaluations.execution import CellExecutor
from evaluations.models import Run, RunState, RunWorker
from evaluations.sink import ResultSink
from evaluations.source import CellSource
from evaluations.tokens import TokenStream

log = logging.getLogger(__name__)


async def drain(run_id: UUID, worker: str) -> None:
    """Work on the run until it has ended, here or elsewhere. `worker` is unique among processes.

    A bug ends the run as failed, with the exception as its reason; it is logged here and not raised.
    """
    async with DbThread() as db:
        try:
            await _drain(run_id, worker, db)
        except Exception as error:
            cause = _first_cause(error)
            log.error("run %s failed", run_id, exc_info=cause)
            reason = f"{type(cause).__name__}: {cause}"
            await db.insist(claims.end_run, run_id, RunState.FAILED, reason)


async def _drain(run_id: UUID, name: str, db: DbThread) -> None:
    while True:
        match await db.insist(claims.next_step, run_id):
            case Step.STOP:
                return
            case Step.WAIT:
                # Others have the rest: they finish it, or fall silent and leave it to us.
                await asyncio.sleep(settings.RUN_HEARTBEAT_S / 4)
            case Step.WORK:
                if worker := await db.insist(claims.join_run, run_id, name):
                    await _work(worker, db)


async def _work(worker: RunWorker, db: DbThread) -> None:
    try:
        plan = await db(_plan, worker.run_id)
        await _Session(plan, worker, db).work()
    finally:
        await db.insist(claims.leave_run, worker)


def _plan(run_id: UUID) -> Plan:
    return Plan(Run.objects.get(pk=run_id))


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Session:
    """One worker's stay with a run, from joining to leaving.

    A lane executes one cell after the other; as many lanes run as the worker's share allows. That is
    cheaper than a task and a semaphore for each cell.
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
        self._lanes: set[int] = set()

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

    async def _take_share(self) -> None:
        """Wait until there is a lane for this worker, or the run has ended."""
        while True:
            await self._beat_once()
            if self._share.lanes or not self._share.is_live:
                return
            await asyncio.sleep(settings.RUN_HEARTBEAT_S / 4)

    async def _beat(self, lanes: asyncio.TaskGroup) -> None:
        while True:
            is_waiting = self._share.lanes < self._share.part
            await asyncio.sleep(settings.RUN_HEARTBEAT_S / (4 if is_waiting else 1))
            await self._beat_once()
            self._fill(lanes)

    async def _beat_once(self) -> None:
        busy = len(self._lanes)
        self._share = await self._db.insist(claims.beat, self._worker, self._run.concurrency, busy)
        self._source.expect_lanes(self._share.lanes)
        if not self._share.is_live:
            self._source.stop()

    def _fill(self, lanes: asyncio.TaskGroup) -> None:
        """Start the lanes that the share allows and that are not running."""
        if self._source.is_exhausted:
            return
        for number in range(self._share.lanes):
            if number not in self._lanes:
                self._lanes.add(number)
                lanes.create_task(self._lane(number))

    async def _lane(self, number: int) -> None:
        try:
            while number < self._share.lanes and (cell := await self._source.next()):
                finished = await self._executor.execute(cell)
                await self._sink.put(finished, done_shard=cell.shard.finish_cell())
                if not self._sink.is_run_live:
                    self._source.stop()
        except BudgetSpentError:
            self._source.stop()
            await self._db.insist(claims.end_run, self._run.pk, RunState.OVER_BUDGET)
        finally:
            self._lanes.discard(number)
