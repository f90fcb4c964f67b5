"""Things that belong to one event loop and are closed with it: HTTP sessions, Redis clients."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One `T` for each running event loop, opened on first use."""

    def __init__(self, opened: Callable[[], T], closed: Callable[[T], Awaitable[None]]) -> None:
        self._opened = opened
        self._closed = closed
        self._open: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}

    def get(self) -> T:
        """The running loop's own."""
        loop = asyncio.get_running_loop()
        held = self._open.get(loop)
        if held is None:
            held = self._open[loop] = self._guarded(loop)
        return held[0]

    async def close(self) -> None:
        """Close the running loop's own, if it has one."""
        held = self._open.get(asyncio.get_running_loop())
        if held is not None:
            await held[1].aclose()

    def _guarded(self, loop: asyncio.AbstractEventLoop) -> tuple[T, AsyncGenerator[None, None]]:
        value = self._opened()
        guard = self._guard(loop, value)
        # A loop that ends closes the asynchronous generators that were started in it (PEP 525), and with
        # this one `value`. It yields without waiting, so one step by hand starts it.
        with contextlib.suppress(StopIteration):
            guard.__anext__().send(None)
        return value, guard

    async def _guard(self, loop: asyncio.AbstractEventLoop, value: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._open.pop(loop, None)
            await self._closed(value)
