"""CPU, memory, pool and loop of this process, sampled beside the work and never in its way."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import psutil
from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram

from autoforge.db.metrics import sample_pools

INTERVAL_S = 1.0
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

resident_bytes = Gauge(
    "autoforge_process_resident_memory_bytes",
    "Resident memory of each process.",
    ["kind"],
    multiprocess_mode="liveall",
)
limit_bytes = Gauge(
    "autoforge_process_memory_limit_bytes",
    "Resident memory that each process should stay below.",
    ["kind"],
    multiprocess_mode="liveall",
)
cpu_seconds = Counter("autoforge_process_cpu_seconds_total", "CPU time, user and system.", ["kind"])
starts = Counter("autoforge_process_starts_total", "Processes that were started.", ["kind"])
loop_lag_seconds = Histogram(
    "autoforge_event_loop_lag_seconds", "How late the event loop woke up.", buckets=LAG_BUCKETS_S
)

Probe = Callable[[], None]


class Sampler:
    """One daemon thread a process; `start` may be called again after a fork."""

    def __init__(self) -> None:
        self._pid = 0
        self._probes: list[Probe] = [sample_pools]

    def add(self, probe: Probe) -> None:
        """Have `probe` called about once a second, in the sampler's thread."""
        self._probes.append(probe)

    def start(self, kind: str) -> None:
        """`kind` is web, worker or beat: a label with few values."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        starts.labels(kind).inc()
        if settings.MEMORY_LIMIT_BYTES:
            limit_bytes.labels(kind).set(settings.MEMORY_LIMIT_BYTES)
        threading.Thread(target=self._sample, args=(kind,), name="sampler", daemon=True).start()

    def _sample(self, kind: str) -> None:
        process = psutil.Process()
        used = 0.0
        while True:
            times = process.cpu_times()
            cpu_seconds.labels(kind).inc(max(0.0, times.user + times.system - used))
            used = times.user + times.system
            resident_bytes.labels(kind).set(process.memory_info().rss)
            for probe in self._probes:
                probe()
            time.sleep(INTERVAL_S)


sampler = Sampler()
_watchers: set[asyncio.Task[None]] = set()


async def watch_loop() -> None:
    """Measure the running loop's lag from now on, until the loop ends."""
    task = asyncio.create_task(_measure_lag())
    _watchers.add(task)
    task.add_done_callback(_watchers.discard)


async def _measure_lag() -> None:
    while True:
        due = time.perf_counter() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        loop_lag_seconds.observe(max(0.0, time.perf_counter() - due))
