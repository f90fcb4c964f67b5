"""The one thread in which a drain talks to the database: its event loop never waits for a statement."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from django.db import InterfaceError, OperationalError, connections, reset_queries

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
# A database that restarts is back within about these seconds.
_PAUSES_S = (0.1, 0.5, 2.0, 5.0)


def _forgetful(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """With DEBUG on, Django keeps the text of every statement until a request ends; here none does."""
    try:
        return function(*args, **kwargs)
    finally:
        reset_queries()


class DbThread:
    """Runs functions one after the other on its own connection, which is closed with it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run-db")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: _forgetful(function, *args, **kwargs))

    async def insist(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same through a lost connection or a lock; only for what may be carried out twice."""
        for pause_s in _PAUSES_S:
            try:
                return await self(function, *args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                log.warning("database: %s; trying again in %s s", error, pause_s)
                await self(connections.close_all)
                await asyncio.sleep(pause_s)
        return await self(function, *args, **kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self(connections.close_all)
        self._thread.shutdown(wait=False)
