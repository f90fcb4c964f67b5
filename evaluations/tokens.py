"""Streams the text of running cells to whoever watches, in batches, and only for runs one can follow."""

import asyncio
from collections.abc import Callable

from evaluations import events
from evaluations.db_thread import DbThread
from evaluations.models import Run

BATCH_S = 0.05
# Nobody reads along with more cells than these at once, and streaming costs CPU for every chunk.
MAX_CONCURRENCY = 16

_Coordinates = tuple[int, int, int]


class TokenStream:
    """Collects deltas by cell; each cell sends at most one message every 50 ms."""

    def __init__(self, run: Run, db: DbThread) -> None:
        self._run = run
        self._db = db
        self._texts: dict[_Coordinates, list[str]] = {}
        self._wake = asyncio.Event()
        self.is_open = run.concurrency <= MAX_CONCURRENCY and events.run_event.has_listeners()

    def listener(self, case: int, column: int, repeat: int) -> Callable[[str], None] | None:
        """What takes the deltas of one cell; None when nobody would hear them."""
        if not self.is_open:
            return None
        coordinates = (case, column, repeat)

        def hear(text: str) -> None:
            self._texts.setdefault(coordinates, []).append(text)
            self._wake.set()

        return hear

    async def run(self) -> None:
        """Send batches until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_S)
            self._wake.clear()
            texts, self._texts = self._texts, {}
            await self._db(self._send, texts)

    def _send(self, texts: dict[_Coordinates, list[str]]) -> None:
        for (case, column, repeat), pieces in texts.items():
            events.emit(
                events.CellTokens(
                    project_id=self._run.project_id,
                    run_id=self._run.pk,
                    case=case,
                    column=column,
                    repeat=repeat,
                    text="".join(pieces),
                )
            )
