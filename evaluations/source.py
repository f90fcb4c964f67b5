"""Feeds a worker's lanes with cells: claims shards, the next one before the present one is empty."""

import asyncio
from collections import deque

from evaluations.cells import Cell, Plan, load_shard
from evaluations.claims import claim_shard
from evaluations.db_thread import DbThread
from evaluations.models import RunWorker, Shard

# Cells that lanes may take while the next shard is being fetched.
_SPARE_CELLS = 50


class CellSource:
    """The cells that this worker can get hold of; holds at most two shards of them."""

    def __init__(self, plan: Plan, worker: RunWorker, db: DbThread) -> None:
        self._plan = plan
        self._worker = worker
        self._db = db
        self._ready: deque[Cell] = deque()
        self._fetching: asyncio.Task[None] | None = None
        self._low_water = _SPARE_CELLS
        self.is_exhausted = False

    def expect_lanes(self, lanes: int) -> None:
        """Fetch early enough for this many lanes."""
        self._low_water = lanes + _SPARE_CELLS

    @property
    def has_more(self) -> bool:
        """Whether a lane may find a cell here."""
        return bool(self._ready) or not self.is_exhausted

    def stop(self) -> None:
        """Hand out no more cells."""
        self.is_exhausted = True
        self._ready.clear()

    async def next(self) -> Cell | None:
        """The next cell; None when there is nothing left to claim, or after `stop`."""
        while not self._ready:
            if self.is_exhausted:
                return None
            # Other lanes wait for the same fetch, and may stay when this one is cancelled.
            await asyncio.shield(self._fetch())
        if len(self._ready) <= self._low_water and not self.is_exhausted:
            self._fetch()
        return self._ready.popleft()

    async def close(self) -> None:
        """Wait for a fetch under way; a shard that it brings is given back when the worker leaves."""
        self.stop()
        if self._fetching:
            await asyncio.wait([self._fetching])

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_shard())
        return self._fetching

    async def _fetch_shard(self) -> None:
        # Claimed by an answer that was lost, a shard comes free when this worker leaves.
        shard, cells = await self._db.insist(_claim, self._plan, self._worker)
        if shard is None:
            self.is_exhausted = True
        elif not cells:
            await self._db.insist(_close, shard)
        elif not self.is_exhausted:
            self._ready.extend(cells)


def _claim(plan: Plan, worker: RunWorker) -> tuple[Shard | None, list[Cell]]:
    shard = claim_shard(worker)
    return shard, load_shard(plan, shard) if shard else []


def _close(shard: Shard) -> None:
    """Every cell had been recorded by a worker that died before it could say so."""
    Shard.objects.filter(pk=shard.pk).update(is_done=True)
