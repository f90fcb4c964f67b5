"""Single flight: identical questions asked at the same time share one call of the model.

A flight is a task in the event loop of whoever asked first; readers may live in any loop of this
process. It goes on while anybody reads it and is cancelled when the last reader leaves.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from decimal import Decimal

import msgspec

from prompts.llm.providers.base import Completion, Delta, ProviderError

Outcome = Completion | BaseException


class Flight:
    """One call, the pieces it has brought so far, and who reads them."""

    def __init__(self, key: str | None, call: Callable[["Flight"], Awaitable[Completion]]) -> None:
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._parts: list[Delta] = []
        self._readers: set[_Reader] = set()
        self._outcome: Outcome | None = None
        self._is_paid = False
        self._is_delivered = False
        self._task = asyncio.create_task(self._fly(call))

    @property
    def is_shared(self) -> bool:
        """Whether more than one waits for it."""
        return len(self._readers) > 1

    def publish(self, delta: Delta) -> None:
        """Hand a piece to all who read pieces."""
        with self._lock:
            self._parts.append(delta)
        for reader in tuple(self._readers):
            if reader.wants_parts:
                reader.wake()

    def restart(self) -> bool:
        """Forget the pieces before another attempt; False if somebody has already got one."""
        with self._lock:
            if not self._is_delivered:
                self._parts.clear()
            return not self._is_delivered

    async def read(self, reader: "_Reader") -> AsyncGenerator[Delta | Completion, None]:
        """The pieces from the beginning, as they come, and the completion. Raises what the call raised."""
        position = 0
        while True:
            reader.event.clear()
            parts, outcome = self._take(position, reader)
            for part in parts:
                yield part
            position += len(parts)
            if outcome is not None:
                yield self._completion(outcome)
                return
            if not parts:
                await reader.event.wait()

    def _take(self, position: int, reader: "_Reader") -> tuple[list[Delta], Outcome | None]:
        with self._lock:
            parts = self._parts[position:] if reader.wants_parts else []
            self._is_delivered = self._is_delivered or bool(parts)
            return parts, self._outcome

    def _completion(self, outcome: Outcome) -> Completion:
        if isinstance(outcome, BaseException):
            raise outcome
        with self._lock:
            is_first, self._is_paid = not self._is_paid, True
        return outcome if is_first else shared(outcome)

    async def _fly(self, call: Callable[["Flight"], Awaitable[Completion]]) -> None:
        try:
            outcome: Outcome = await call(self)
        except asyncio.CancelledError:
            self._land(_lost())
            raise
        except Exception as error:
            outcome = error
        self._land(outcome)

    def _land(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcome = outcome
        board.remove(self._key, self)
        for reader in tuple(self._readers):
            reader.wake()

    def join(self, reader: "_Reader") -> None:
        """Only under the board's lock: a flight nobody reads is being cancelled."""
        self._readers.add(reader)

    def leave(self, reader: "_Reader") -> bool:
        """Only under the board's lock. Whether nobody is left who waits for an outcome."""
        self._readers.discard(reader)
        return not self._readers and self._outcome is None

    def cancel(self) -> None:
        """End the call."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._task.cancel)


def _lost() -> ProviderError:
    """The event loop that made the call ended before it had an answer; its readers' may go on."""
    return ProviderError("unavailable", "The call was broken off by a shutdown.", is_retryable=True)


class _Reader:
    """Somebody who waits for a flight, in their own event loop."""

    def __init__(self, *, wants_parts: bool) -> None:
        self.wants_parts = wants_parts
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def wake(self) -> None:
        """Safe from every thread."""
        if threading.get_ident() == self._thread:
            self.event.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.event.set)


class Board:
    """The flights of this process that others may join, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}

    async def fly(
        self,
        key: str | None,
        call: Callable[[Flight], Awaitable[Completion]],
        *,
        wants_parts: bool,
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Read the flight of `key`, which `call` becomes if there is none. None is never shared."""
        reader = _Reader(wants_parts=wants_parts)
        flight = self._joined(key, call, reader)
        try:
            async for part in flight.read(reader):
                yield part
        finally:
            self._leave(key, flight, reader)

    def remove(self, key: str | None, flight: Flight) -> None:
        """Let nobody join any more."""
        with self._lock:
            self._remove(key, flight)

    def __len__(self) -> int:
        return len(self._flights)

    def _joined(
        self, key: str | None, call: Callable[[Flight], Awaitable[Completion]], reader: _Reader
    ) -> Flight:
        with self._lock:
            flight = self._flights.get(key) if key else None
            if flight is None:
                flight = Flight(key, call)
                if key:
                    self._flights[key] = flight
            flight.join(reader)
            return flight

    def _leave(self, key: str | None, flight: Flight, reader: _Reader) -> None:
        with self._lock:
            is_deserted = flight.leave(reader)
            if is_deserted:
                self._remove(key, flight)
        if is_deserted:
            flight.cancel()

    def _remove(self, key: str | None, flight: Flight) -> None:
        if key and self._flights.get(key) is flight:
            del self._flights[key]


board = Board()


def shared(completion: Completion) -> Completion:
    """The completion for somebody who did not pay for it."""
    saved = completion.saved_usd if completion.cached else completion.cost_usd
    return msgspec.structs.replace(completion, cached=True, cost_usd=Decimal(0), saved_usd=saved)
