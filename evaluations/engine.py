"""Drains a run: claims its shards until none is left, and keeps its share of the concurrency busy."""

import asyncio
import logging
from contextlib import suppress
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError

from evaluations import claims
from evaluations.cells import Plan
from evaluations.claims import Step
from evaluations.db_thread import DbThread
from evaluations.models import Run, RunState, RunWorker
from evaluations.session import Session

log = logging.getLogger(__name__)


class Drain:
    """One process's work on one run. `worker` is unique among all processes."""

    def __init__(self, run_id: UUID, worker: str) -> None:
        self._run_id = run_id
        self._name = worker
        self._session: Session | None = None
        self._stopped = asyncio.Event()

    async def work(self) -> None:
        """Until the run has ended, here or elsewhere, or `stop` is called.

        A bug ends the run as failed, with the exception as its reason; it is logged here and not raised.
        Raises OperationalError when the database stays away.
        """
        async with DbThread() as db:
            try:
                await self._work(db)
            except Exception as error:
                cause = _first_cause(error)
                if isinstance(cause, OperationalError | InterfaceError):
                    raise cause from None
                log.error("run %s failed", self._run_id, exc_info=cause)
                reason = f"{type(cause).__name__}: {cause}"
                await db.insist(claims.end_run, self._run_id, RunState.FAILED, reason)

    async def stop(self, grace_s: float) -> None:
        """Begin no more cells, and break off those that take longer than `grace_s`."""
        self._stopped.set()
        if session := self._session:
            session.stop()
            await asyncio.sleep(grace_s)
            session.break_off()

    async def _work(self, db: DbThread) -> None:
        while not self._stopped.is_set():
            match await db.insist(claims.next_step, self._run_id):
                case Step.STOP:
                    return
                case Step.WAIT:
                    # Others have the rest: they finish it, or fall silent and leave it to us.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(settings.RUN_HEARTBEAT_S / 4):
                            await self._stopped.wait()
                case Step.WORK:
                    if worker := await db.insist(claims.join_run, self._run_id, self._name):
                        await self._stay(worker, db)

    async def _stay(self, worker: RunWorker, db: DbThread) -> None:
        try:
            self._session = Session(await db.insist(_plan, worker.run_id), worker, db)
            if not self._stopped.is_set():
                await self._session.work()
        finally:
            self._session = None
            await db.insist(claims.leave_run, worker)


def _plan(run_id: UUID) -> Plan:
    return Plan(Run.objects.get(pk=run_id))


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
