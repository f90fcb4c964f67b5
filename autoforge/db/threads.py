"""Database work of async code: on a pool of threads that give their connection back."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


def in_db_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`function` as a coroutine function; its connection is back in the pool when it returns.

    Runs on the loop's default executor: Channels' own default is a single thread a process.
    """
    return database_sync_to_async(function, thread_sensitive=False)
