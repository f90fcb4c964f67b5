"""How many calls a worker makes at once: its share of the run's concurrency, which changes as it works."""

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A semaphore whose size may change. `on_excess` is called when a slot above the size is given back."""

    def __init__(self, on_excess: Callable[[], None]) -> None:
        self._on_excess = on_excess
        self._allowed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.busy = 0

    def allow(self, count: int) -> None:
        """From now on `count` calls at once; those above it end by themselves."""
        self._allowed = count
        self._admit()

    def hold(self) -> int:
        """The calls at this moment; no more than these at once until `allow` says anew."""
        self._allowed = min(self._allowed, self.busy)
        return self.busy

    async def take(self) -> None:
        """Wait for a slot, first come, first served."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self.give_back()
            raise

    def give_back(self) -> None:
        """The call is over."""
        self.busy -= 1
        if self.busy >= self._allowed:
            self._on_excess()
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.busy < self._allowed:
            turn = self._waiting.popleft()
            if not turn.done():
                self.busy += 1
                turn.set_result(None)


class Turn:
    """The calls of one cell: each waits for a slot."""

    __slots__ = ("_is_withdrawn", "_slots", "has_begun")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_withdrawn = False
        self.has_begun = False
        """Whether a model has been asked: then the cell is finished even if the run has been stopped."""

    async def __aenter__(self) -> None:
        await self._slots.take()

    async def __aexit__(self, *_: object) -> None:
        self._slots.give_back()

    def withdraw(self) -> None:
        """Ask no model any more: the cancellation that follows may be late by a moment."""
        self._is_withdrawn = True

    def begin(self, *, for_others: bool) -> None:
        """The model is being asked now. Raises CancelledError after `withdraw`, unless others wait, too."""
        if self._is_withdrawn and not for_others:
            raise asyncio.CancelledError
        self.has_begun = True

    def answered(self, completion: object) -> None:
        """What it costs is settled by the run's lease."""
