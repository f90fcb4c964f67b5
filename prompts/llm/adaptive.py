"""Concurrency that adapts to what a vendor bears: halved when it is overloaded, grown back slowly."""

import asyncio
import math
import time
from collections import deque

import msgspec

MIN_CONCURRENCY = 1.0


class Tally(msgspec.Struct):
    """What a gate saw since somebody took its tally."""

    successes: int = 0
    # When the latest of the refused calls began (`time.monotonic()`), and the most in flight at a refusal.
    refused_start: float | None = None
    in_flight: int = 0


class Gate:
    """Lets a number of calls of one endpoint through, in the order they came.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): open until the first overload, then
    half of what was in flight, and one more for each round of successes, until as many as before are
    let through again. One event loop's own; while it `is_shared` somebody else says what its limit is.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self.limit = MIN_CONCURRENCY if is_shared else math.inf
        self.is_shared = is_shared
        self.in_flight = 0
        self.was_refused = asyncio.Event()
        self._tally = Tally()
        self._most: int | None = None
        self._peak = 0
        self._cut_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, most: int | None) -> None:
        """Wait for a place; `most` is the endpoint's own limit."""
        self._most = most
        if self._waiting or not self._has_place():
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                self._abandon(place)
                raise
        else:
            self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit()

    def succeeded(self) -> None:
        """A call that ended well: a little more may be let through."""
        self._tally.successes += 1
        if self.is_shared or self.limit == math.inf:
            return
        self.limit += 1 / self.limit
        if self.limit > self._peak:
            self.limit, self._peak = math.inf, self.in_flight

    def overloaded(self, started: float) -> None:
        """A call, begun at `started` (`time.monotonic()`), that the vendor refused for its load.

        Calls that began before the last cut say nothing about what the cut brought.
        """
        self._tally.refused_start = max(started, self._tally.refused_start or started)
        self._tally.in_flight = max(self.in_flight, self._tally.in_flight)
        self.was_refused.set()
        if started >= self._cut_at:
            self.limit = max(MIN_CONCURRENCY, self.in_flight / 2)
            self._cut_at = time.monotonic()

    def adopt(self, limit: float) -> None:
        """Let `limit` through from now on."""
        self.limit = limit
        self._admit()

    def take_tally(self) -> Tally:
        """What happened since the last call of this."""
        taken, self._tally = self._tally, Tally()
        self.was_refused.clear()
        return taken

    @property
    def demand(self) -> int:
        """Calls in flight, or waiting to be."""
        return self.in_flight + len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if it were forgotten."""
        is_told = self.is_shared and not self.was_refused.is_set()
        return not self.demand and (is_told or self.limit == math.inf)

    def _has_place(self) -> bool:
        return self.in_flight < min(self.limit, self._most or math.inf)

    def _admit(self) -> None:
        while self._waiting and self._has_place():
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def _abandon(self, place: asyncio.Future[None]) -> None:
        """A waiter that was cancelled, perhaps in the moment it got its place."""
        if place.done() and not place.cancelled():
            self.leave()
        else:
            place.cancel()
            self._waiting = deque(waiter for waiter in self._waiting if waiter is not place)
