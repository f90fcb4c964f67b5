"""The memory guard: a process that is too large trims, then refuses, then makes room for a fresh one."""

import ctypes
import gc
import logging
import os
import signal
import threading
import time
from enum import IntEnum

import psutil
from django.conf import settings
from prometheus_client import Counter, Gauge

from autoforge.trimming import trim_all

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
# Between two trims; doubled up to the longest while they free next to nothing.
TRIM_PAUSE_S, LONGEST_PAUSE_S = 5.0, 160.0
WORTH_SHARE = 0.02
# A process is as large as it must be after this time …
SETTLED_S = 5.0
# … and one that has never been below its soft limit since is not replaced before this: the next would be no
# smaller.
CROWDED_S = 60.0

level_now = Gauge(
    "autoforge_memory_guard_level",
    "0: below the soft limit, 1: above it, no new WebSockets, 2: above the limit.",
    ["kind"],
    multiprocess_mode="liveall",
)
trims = Counter("autoforge_memory_trims_total", "Times a process gave up its caches.", ["kind"])
trimmed_bytes = Counter("autoforge_memory_trimmed_bytes_total", "What that freed.", ["kind"])
restarts = Counter("autoforge_memory_restarts_total", "Processes ended at the limit.", ["kind"])


class Level(IntEnum):
    """Where the resident memory of this process is."""

    CALM = 0
    SOFT = 1
    HARD = 2


class Guard:
    """One daemon thread a process; `start` may be called again, the first call counts."""

    def __init__(self) -> None:
        self._pid = 0
        self._reset("", is_supervised=False)

    def start(self, kind: str, *, is_supervised: bool = False) -> None:
        """Watch from now on. `kind` is web, worker, beat or all; only a supervised process is ever ended."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._reset(kind, is_supervised=is_supervised)
        for counter in (trims, trimmed_bytes, restarts):
            counter.labels(kind)  # a rate sees the first one only if there was a zero before it
        threading.Thread(target=self._watch, name="memory-guard", daemon=True).start()

    def admits(self) -> bool:
        """Whether new WebSockets may come."""
        return self._level is Level.CALM

    def _reset(self, kind: str, *, is_supervised: bool) -> None:
        self._kind, self._is_supervised = kind, is_supervised
        self._level, self._started = Level.CALM, time.monotonic()
        self._trim_due, self._pause_s = 0.0, TRIM_PAUSE_S
        self._may_end_after_s = CROWDED_S
        self._is_ending = False

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            time.sleep(INTERVAL_S)
            try:
                self._look(process)
            except Exception:
                logger.exception("The memory guard failed; it goes on")

    def _look(self, process: psutil.Process) -> None:
        used: int = process.memory_info().rss
        if level_of(used) is not Level.CALM and time.monotonic() >= self._trim_due:
            used = self._trim(process, used)
        self._level = level_of(used)
        level_now.labels(self._kind).set(self._level)
        if self._level is Level.CALM and self._age_s() >= SETTLED_S:
            self._may_end_after_s = SETTLED_S
        if self._level is Level.HARD and self._may_end():
            self._end(used)

    def _trim(self, process: psutil.Process, before: int) -> int:
        """Free what can be freed; the resident memory afterwards."""
        freed = trim_all()
        gc.collect()
        _return_to_system()
        after: int = process.memory_info().rss
        gain = max(0, before - after)
        trims.labels(self._kind).inc()
        trimmed_bytes.labels(self._kind).inc(gain)
        is_worth_it = gain > WORTH_SHARE * settings.MEMORY_LIMIT_BYTES
        self._pause_s = TRIM_PAUSE_S if is_worth_it else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._trim_due = time.monotonic() + self._pause_s
        logger.warning(
            "Memory of this %s process was at %.0f MiB, its limit is %.0f MiB: trimmed to %.0f MiB (%s)",
            self._kind,
            before / 2**20,
            settings.MEMORY_LIMIT_BYTES / 2**20,
            after / 2**20,
            ", ".join(f"{name} {count / 2**20:.1f} MiB" for name, count in freed.items())
            or "caches are empty",
        )
        return after

    def _may_end(self) -> bool:
        is_old_enough = self._age_s() >= self._may_end_after_s
        return self._is_supervised and is_old_enough and not self._is_ending

    def _end(self, used: int) -> None:
        """As a supervisor would stop it: requests finish, WebSockets and runs are left in order."""
        self._is_ending = True
        restarts.labels(self._kind).inc()
        logger.error(
            "Memory of this %s process is at %.0f MiB, over its limit of %.0f MiB: a fresh one replaces it",
            self._kind,
            used / 2**20,
            settings.MEMORY_LIMIT_BYTES / 2**20,
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def _age_s(self) -> float:
        return time.monotonic() - self._started


def level_of(used: int) -> Level:
    """The level of a process that takes `used` bytes."""
    if used < settings.MEMORY_LIMIT_BYTES * settings.MEMORY_SOFT_SHARE:
        return Level.CALM
    return Level.SOFT if used < settings.MEMORY_LIMIT_BYTES else Level.HARD


def _return_to_system() -> None:
    """glibc keeps what was freed unless it is told not to; other systems' libraries have no such call."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


guard = Guard()
