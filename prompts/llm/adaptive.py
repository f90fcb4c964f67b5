"""Concurrency that adapts to what a vendor bears: halved when it is overloaded, grown back slowly."""

import asyncio
import math
import time
from collections import deque

MIN_CONCURRENCY = 1.0


class Gate:
    """Lets a number of calls of one endpoint through, in the order they came.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): open until the first overload, then
    half of what was in flight, and one more for each round of successes, until as many as before are
    let through again. One event loop's own.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self.in_flight = 0
        self._peak = 0
        self._cut_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, most: int | None) -> None:
        """Wait for a place; `most` is the endpoint's own limit."""
        if self._waiting or not self._has_place(most):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                self._abandon(place, most)
                raise
        else:
            self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def leave(self, most: int | None) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit(most)

    def succeeded(self) -> None:
        """A call that ended well: a little more may be let through."""
        if self.limit == math.inf:
            return
        self.limit += 1 / self.limit
        if self.limit > self._peak:
            self.limit, self._peak = math.inf, self.in_flight

    def overloaded(self, started: float) -> None:
        """A call, begun at `started` (`time.monotonic()`), that the vendor refused for its load.

        Calls that began before the last cut say nothing about what the cut brought.
        """
        if started >= self._cut_at:
            self.limit = max(MIN_CONCURRENCY, self.in_flight / 2)
            self._cut_at = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if it were forgotten."""
        return not self.in_flight and not self._waiting and self.limit == math.inf

    def _has_place(self, most: int | None) -> bool:
        return self.in_flight < min(self.limit, most or math.inf)

    def _admit(self, most: int | None) -> None:
        while self._waiting and self._has_place(most):
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def _abandon(self, place: asyncio.Future[None], most: int | None) -> None:
        """A waiter that was cancelled, perhaps in the moment it got its place."""
        if place.done() and not place.cancelled():
            self.leave(most)
        else:
            place.cancel()
            self._waiting = deque(waiter for waiter in self._waiting if waiter is not place)
