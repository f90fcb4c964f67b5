"""A few threads of our own for what a WebSocket needs from the database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

# Channels' own helper has one thread a process for everything.
DATABASE_THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")
_pool = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="realtime")


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`call(…)` in a thread whose database connection is fresh before and given back after."""

    def run() -> R:
        close_old_connections()
        try:
            return call(*args, **kwargs)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_pool, run)
