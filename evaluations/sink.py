"""Collects finished cells and writes them in batches, by size or time, off the event loop."""

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from django.conf import settings

from evaluations import events
from evaluations.claims import progress_of
from evaluations.db_thread import DbThread
from evaluations.models import LIVE_STATES, Run, RunWorker
from evaluations.recording import FinishedCell, Recorded, record_batch

# Cells that may wait for the writer before lanes have to; also the largest batch.
MAX_PENDING = 1_000
PROGRESS_EVERY_S = 0.1


class ResultSink:
    """Takes cells as they finish. `put` waits when the database cannot keep up: memory stays bounded."""

    def __init__(self, worker: RunWorker, db: DbThread, *, has_budget: bool) -> None:
        self._has_budget = has_budget
        self._worker = worker
        self._db = db
        self._cells: list[FinishedCell] = []
        self._done_shards: list[int] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_full_batch = asyncio.Event()
        self._is_closing = False
        self._progress_due = 0.0
        self._unfinished_usd = self._told_usd = Decimal(0)
        self.is_run_live = True
        self.workers = 1
        """How many drained the run when the last batch was written."""

    async def put(self, cell: FinishedCell, *, done_shard: int | None = None) -> None:
        """Hand over a cell; `done_shard` is the shard whose last cell it is."""
        self._cells.append(cell)
        if done_shard is not None:
            self._done_shards.append(done_shard)
        self._wake.set()
        if len(self._cells) >= settings.RUN_BATCH_CELLS:
            self._is_full_batch.set()
        if len(self._cells) >= MAX_PENDING:
            self._room.clear()
            await self._room.wait()

    def count_cost(self, cost_usd: Decimal) -> None:
        """Add what was paid for a cell that has no result."""
        self._unfinished_usd += cost_usd

    async def run(self) -> None:
        """Write batches until `close` is called and everything is written."""
        # Half of the time for collecting, the other half for writing: durable within RUN_BATCH_MS.
        linger_s = settings.RUN_BATCH_MS / 2000
        while True:
            await self._wake.wait()
            if not self._is_closing and len(self._cells) < settings.RUN_BATCH_CELLS:
                await self._collect(linger_s)
            await self._write()
            if self._is_closing and not self._cells and not self._done_shards:
                return

    def close(self) -> None:
        """No more cells come: `run` ends after the rest is written."""
        self._is_closing = True
        self._wake.set()
        self._is_full_batch.set()

    async def write_rest(self) -> None:
        """What `run` did not come to, because something failed."""
        while self._cells or self._done_shards or self._unfinished_usd != self._told_usd:
            await self._write()
        await self._db.insist(self._tell_progress)

    def _tell_progress(self) -> None:
        run = Run.objects.filter(pk=self._worker.run_id).first()
        if run is not None:
            events.emit(progress_of(run.pk, run))

    async def _collect(self, linger_s: float) -> None:
        try:
            async with asyncio.timeout(linger_s):
                await self._is_full_batch.wait()
        except TimeoutError:
            pass

    async def _write(self) -> None:
        cells, self._cells = self._cells, []
        shards, self._done_shards = self._done_shards, []
        if not self._is_closing:
            self._wake.clear()
            self._is_full_batch.clear()
        unfinished_usd = self._unfinished_usd
        if cells or shards or unfinished_usd != self._told_usd:
            recorded = await self._db.insist(self._record, cells, shards, unfinished_usd)
            self._told_usd = unfinished_usd
            self.is_run_live = recorded.counters.state in LIVE_STATES
            self.workers = recorded.workers
        self._room.set()

    def _record(self, cells: list[FinishedCell], shards: list[int], unfinished_usd: Decimal) -> Recorded:
        """In the writer thread: write, then tell."""
        recorded = record_batch(
            self._worker, cells, shards, has_budget=self._has_budget, unfinished_usd=unfinished_usd
        )
        run_id, counters = self._worker.run_id, recorded.counters
        if recorded.ids:
            events.emit(results_recorded(run_id, recorded, cells))
        now = time.monotonic()
        if now >= self._progress_due:
            self._progress_due = now + PROGRESS_EVERY_S
            events.emit(progress_of(run_id, counters))
        return recorded


def results_recorded(
    run_id: UUID, recorded: Recorded, cells: Sequence[FinishedCell]
) -> events.ResultRecorded:
    """What to tell of a batch: its new rows."""
    return events.ResultRecorded(
        project_id=recorded.counters.project_id,
        run_id=run_id,
        results=[
            {
                "id": recorded.ids[cell.key],
                "case": cell.case_id,
                "column": cell.column,
                "repeat": cell.repeat,
                "state": cell.state,
                "score": cell.score,
                "latency_ms": cell.latency_ms,
                "cached": cell.cached,
            }
            for cell in cells
            if cell.key in recorded.ids
        ],
    )
