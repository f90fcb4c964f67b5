"""Lets WebSockets be told of a restart before the server, told to stop, cuts them off."""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def before_stop(farewell: Callable[[], Awaitable[None]]) -> None:
    """Run `farewell` in the running loop when the server is told to stop, then let the server do so.

    Neither uvicorn nor daphne gives an application the chance: both end connections as soon as the signal
    arrives. A second signal goes to the server at once. Without a server (tests, commands) nothing is done.
    """
    global _active  # noqa: PLW0603  signal handlers belong to the process
    if threading.current_thread() is not threading.main_thread():
        return
    if _active is not None:
        _active.release()
    if callable(signal.getsignal(signal.SIGTERM)):
        _active = _Interception(farewell)


class _Interception:
    def __init__(self, farewell: Callable[[], Awaitable[None]]) -> None:
        self._farewell = farewell
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._server = {number: signal.signal(number, self._handle) for number in _STOP_SIGNALS}

    def release(self) -> None:
        """Give the signals back to the server."""
        for number, handler in self._server.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.release()
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._start, number)
        else:
            signal.raise_signal(number)

    def _start(self, number: int) -> None:
        self._task = self._loop.create_task(self._say_farewell(number))

    async def _say_farewell(self, number: int) -> None:
        try:
            await self._farewell()
        except TimeoutError:
            logger.info("Some WebSocket clients did not leave in time")
        except Exception:
            logger.exception("WebSocket clients could not be told of the restart")
        finally:
            signal.raise_signal(number)


_active: _Interception | None = None
