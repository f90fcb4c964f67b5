"""Where runs are executed: in this process's own thread, in Celery workers, or in the caller."""

import asyncio
import logging
import math
import os
import secrets
import socket
import threading
import time
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections, connections

from evaluations import claims, engine
from evaluations.models import Run, RunState

log = logging.getLogger(__name__)

_LANES_PER_WORKER = 100


def enqueue(run_id: UUID) -> None:
    """Have the run drained soon, by whatever AUTOFORGE_EXECUTOR says."""
    if settings.EXECUTOR == "celery":
        from evaluations.tasks import drain_run

        for _ in range(_workers_for(run_id)):
            drain_run.delay(str(run_id))
    else:
        in_process.enqueue(run_id)


def _workers_for(run_id: UUID) -> int:
    """How many worker slots to ask for: one keeps this many lanes busy; those that come late find no work."""
    concurrency = Run.objects.values_list("concurrency", flat=True).get(pk=run_id)
    return math.ceil(concurrency / _LANES_PER_WORKER)


def drain_here(run_id: UUID) -> None:
    """Drain the run in this thread until it has ended."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(engine.drain(run_id, _worker_name()))


def run_to_end(run_id: UUID) -> Run:
    """Drain the run in this thread and return it as it ended. Ctrl-C cancels it and is raised again."""
    try:
        drain_here(run_id)
    except KeyboardInterrupt:
        claims.end_run(run_id, RunState.CANCELLED)
        raise
    return Run.objects.select_related("dataset").get(pk=run_id)


def recover_runs() -> int:
    """Enqueue live runs that nobody works on any more; how many."""
    abandoned = claims.take_abandoned()
    for run_id in abandoned:
        log.warning("run %s has no worker any more: it is taken up again", run_id)
        enqueue(run_id)
    return len(abandoned)


def start_recovery() -> None:
    """Look for abandoned runs now and then, in a thread that ends with the process. May be called twice."""
    recovery.start()


def wait_idle(timeout_s: float) -> bool:
    """Whether everything that this process executes by itself ended within `timeout_s`."""
    return in_process.wait_idle(timeout_s)


def _worker_name() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _InProcess:
    """A daemon thread with an event loop of its own, started with the first run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._idle = threading.Condition(self._lock)
        # Value: whether the run was enqueued again while it was being drained.
        self._runs: dict[UUID, bool] = {}

    def enqueue(self, run_id: UUID) -> None:
        with self._lock:
            self._forget_parent()
            if run_id in self._runs:
                self._runs[run_id] = True
                return
            self._runs[run_id] = False
            loop = self._loop = self._loop or self._start()
        asyncio.run_coroutine_threadsafe(self._drain(run_id), loop)

    def wait_idle(self, timeout_s: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: not self._runs, timeout_s)

    def _forget_parent(self) -> None:
        """A thread does not survive a fork: the child starts its own."""
        if self._pid != os.getpid():
            self._pid, self._loop, self._runs = os.getpid(), None, {}

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = _new_loop()
        threading.Thread(target=loop.run_forever, name="runs", daemon=True).start()
        return loop

    async def _drain(self, run_id: UUID) -> None:
        try:
            while True:
                await engine.drain(run_id, _worker_name())
                if not self._is_wanted_again(run_id):
                    return
        except Exception:
            log.exception("run %s could not be drained; it is taken up again later", run_id)
            self._forget(run_id)

    def _is_wanted_again(self, run_id: UUID) -> bool:
        with self._idle:
            if self._runs.get(run_id):
                self._runs[run_id] = False
                return True
            self._runs.pop(run_id, None)
            self._idle.notify_all()
            return False

    def _forget(self, run_id: UUID) -> None:
        with self._idle:
            self._runs.pop(run_id, None)
            self._idle.notify_all()


class _Recovery:
    """Calls `recover_runs` periodically."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0

    def start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
        threading.Thread(target=self._loop, name="run-recovery", daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                close_old_connections()
                recover_runs()
            except Exception:
                log.exception("looking for abandoned runs failed; it is tried again")
            finally:
                connections.close_all()
            time.sleep(settings.RUN_SHARD_SILENT_S / 2)


in_process = _InProcess()
recovery = _Recovery()
