"""Answers read through three layers: a copy in this process, a named cache in Redis, and whoever knows.

A stampede is one load: callers of this process that want the same at the same time share it, and where
a load is slow one process makes it while the others wait. While Redis is away every read is a load.
"""

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from django.conf import settings
from django.core.cache import caches
from django.db import connection

from autoforge.cache_reads import reads
from autoforge.copies import Copies, Group, Kept, Selector, SingleFlight
from autoforge.forgetting import Forgetting
from autoforge.trimming import can_trim

# How often a process looks whether another one has made what both want.
POLL_S = 0.05


class ReadThrough:
    """Answers that change: grouped by what changes them together, and forgotten by group.

    A group has a generation in Redis, a random word, and every entry bears that of the moment before it
    was loaded. `forget` deletes it after the commit: an entry loaded before is never answered again, even
    if it is stored after. So a reader is behind by PROCESS_CACHE_S at most.
    """

    def __init__(self, cache_name: str) -> None:
        self._name = cache_name
        self._copies = Copies()
        _all_copies.append(self._copies)
        self._flights: SingleFlight[Kept] = SingleFlight()
        self._forgetting = Forgetting(cache_name)
        self._reads = {layer: reads.labels(cache_name, layer) for layer in ("process", "redis", "load")}

    def get(
        self, group: Group, selector: Selector, load: Callable[[], bytes], *, fresh: bool = False
    ) -> Kept:
        """The answer to `selector` within `group`; `fresh` passes over the copy of this process.

        What `load` raises is raised, and not kept.
        """
        if connection.in_atomic_block:  # what it sees may never be committed
            return self._load(load)
        if not fresh and (copy := self._copies.get(group, selector)) is not None:
            self._reads["process"].inc()
            return copy
        epoch = self._copies.epoch
        # A read that began before something was forgotten is not joined after it.
        key = (group, selector, epoch, fresh)
        read = partial(self._read, group, selector, load, epoch)
        return self._flights.run(key, read, join_s=0.0 if fresh else settings.PROCESS_CACHE_S)

    def forget(self, group: Group) -> None:
        """To be called after the commit that changed what `group` answers."""
        self._copies.forget(group)
        self._forgetting.forget(_text(group))

    def _read(self, group: Group, selector: Selector, load: Callable[[], bytes], epoch: int) -> Kept:
        read_at = time.monotonic()
        kept = self._read_shared(group, selector, load) if _is_shared() else self._load(load)
        self._copies.put(group, selector, kept, epoch=epoch, read_at=read_at)
        return kept

    def _load(self, load: Callable[[], bytes]) -> Kept:
        self._reads["load"].inc()
        return Kept.of(load())

    def _read_shared(self, group: Group, selector: Selector, load: Callable[[], bytes]) -> Kept:
        cache = caches[self._name]
        generation_key, entry_key = _text(group), _text((*group, *selector))
        found = cache.get_many([generation_key, entry_key])
        generation = found.get(generation_key)
        match found.get(entry_key):
            case [str(bears), str(etag), bytes(body)] if bears == generation:
                self._reads["redis"].inc()
                return Kept(etag, body)
        generation = generation or _begin_generation(cache, generation_key)
        kept = self._load(load)
        if generation is not None:
            cache.set(entry_key, [generation, kept.etag, kept.body])
        return kept


_all_copies: list[Copies] = []


def process_copies() -> Copies:
    """Copies that are in no other cache, for who knows how to forget them."""
    copies = Copies()
    _all_copies.append(copies)
    return copies


def clear_copies() -> int:
    """Free the memory that the copies of this process take; how many bytes."""
    freed = sum(copies.size_bytes for copies in _all_copies)
    for copies in _all_copies:
        copies.forget()
    return freed


can_trim("copies of answers", clear_copies)


def read_once(
    cache_name: str, key: str, load: Callable[[], bytes], *, load_s: float, keep: Callable[[], bool]
) -> bytes:
    """What never changes under its `key`, loaded by one process at a time, which may take `load_s` seconds.

    It is kept if `keep()` says so after the load.
    """
    read = partial(_read_once, cache_name, key, load, load_s, keep)
    return _once.run((cache_name, key), read, join_s=load_s)


_once: SingleFlight[bytes] = SingleFlight()


def _read_once(
    cache_name: str, key: str, load: Callable[[], bytes], load_s: float, keep: Callable[[], bool]
) -> bytes:
    cache: Any = caches[cache_name]
    lock, deadline = f"{key}:lock", time.monotonic() + load_s
    # Not `get`, which would count every look as a read.
    while (kept := cache.get_many([key]).get(key)) is None:
        # False: another process loads it. None: Redis is away.
        if cache.add(lock, "", load_s) is not False or time.monotonic() > deadline:
            reads.labels(cache_name, "load").inc()
            return _load_once(cache, key, lock, load, keep)
        time.sleep(POLL_S)
    reads.labels(cache_name, "redis" if _is_shared() else "process").inc()
    return bytes(kept)


def _load_once(cache: Any, key: str, lock: str, load: Callable[[], bytes], keep: Callable[[], bool]) -> bytes:
    try:
        made = load()
        if keep():
            cache.set(key, made)
    finally:
        cache.delete(lock)
    return made


def _is_shared() -> bool:
    """Without Redis other processes could not be told to forget: then nothing is kept but the copies."""
    return bool(settings.REDIS_URL)


def _text(parts: tuple[str | int | None, ...]) -> str:
    return msgspec.json.encode(parts).decode()


def _begin_generation(cache: Any, key: str) -> str | None:
    """A new generation, or the one that another process has just begun; None when Redis is away."""
    generation = secrets.token_hex(8)
    return generation if cache.add(key, generation) else cache.get(key)
