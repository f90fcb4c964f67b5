"""Pays for what a template does, so that no template takes more than a rendering may.

A rendering cannot be interrupted from outside. So everything a template can do that takes time or
memory in proportion to its operands is paid for here before it is done, in about the bytes it touches.
"""

import threading
import time
from collections.abc import Collection
from typing import Any

MAX_CHARS = 1_048_576  # of any text a template builds
MAX_WORK = 64 * 1_048_576  # bytes touched by one rendering, about
MAX_SECONDS = 1.0  # of the thread's CPU: a busy machine fails nobody
MAX_DEPTH = 64  # of lists in lists
OBJECT_BYTES = 50

CONTAINERS: tuple[type[Collection[Any]], ...] = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
"""Whatever a template can hold values in, except namespaces, whose text does not show them."""


class BoundExceededError(Exception):
    """A template wants more than a rendering may take. The message is a sentence."""


class Meter:
    """What one rendering has left."""

    __slots__ = ("_cpu_deadline", "_deadline", "_left")

    def __init__(self) -> None:
        self._left = MAX_WORK
        self._deadline = time.monotonic() + MAX_SECONDS
        self._cpu_deadline = time.thread_time() + MAX_SECONDS

    def spend(self, size: int) -> None:
        """Pay for touching `size` bytes. Raises BoundExceededError."""
        self._left -= size
        if self._left < 0:
            raise BoundExceededError("The template does more work than a rendering may.")
        # The wall clock is the cheaper one, and never behind.
        if time.monotonic() > self._deadline and time.thread_time() > self._cpu_deadline:
            raise BoundExceededError(f"The template takes longer than {MAX_SECONDS:g} s.")

    def build(self, chars: int) -> None:
        """Pay for a text of `chars` characters. Raises BoundExceededError."""
        if chars > MAX_CHARS:
            raise BoundExceededError(f"The template builds a text of over {MAX_CHARS} characters.")
        self.spend(chars + OBJECT_BYTES)

    def weigh(self, value: Any, depth: int = 0) -> Any:
        """Pay for reading all of `value`, which is returned. Shared parts are paid each time."""
        if isinstance(value, str):
            self.spend(len(value) + OBJECT_BYTES)
        elif isinstance(value, CONTAINERS):
            if depth >= MAX_DEPTH:
                raise BoundExceededError(f"A value is nested deeper than {MAX_DEPTH} levels.")
            self.spend(OBJECT_BYTES + 8 * len(value))
            for item in value:
                self.weigh(item, depth + 1)
            if isinstance(value, dict):
                for item in value.values():
                    self.weigh(item, depth + 1)
        else:
            self.spend(OBJECT_BYTES)
        return value

    def weight(self, value: Any) -> int:
        """Pay for reading `value`; what it took."""
        before = self._left
        self.weigh(value)
        return before - self._left


class _Current(threading.local):
    meter: Meter | None = None


_current = _Current()


def meter() -> Meter:
    """The meter of the rendering that runs in this thread."""
    running = _current.meter
    if running is None:
        raise AssertionError("templates are rendered under a meter")
    return running


class metered:
    """Runs its block under a fresh meter."""

    __slots__ = ()

    def __enter__(self) -> Meter:
        _current.meter = fresh = Meter()
        return fresh

    def __exit__(self, *_: object) -> None:
        _current.meter = None
