"""Where runs are executed: in this process's own thread, in Celery workers, or in the caller."""

import asyncio
import logging
import os
import threading
import time
from uuid import UUID

from django.conf import settings
from django.db import connections

from evaluations import claims
from evaluations.drains import drains, new_loop
from evaluations.engine import Drain
from evaluations.models import Run, RunState
from evaluations.worker_names import new_worker_name

log = logging.getLogger(__name__)


def enqueue(run_id: UUID) -> None:
    """Have the run drained soon, by whatever AUTOFORGE_EXECUTOR says.

    Never fails: workers look for runs by themselves, a message only makes it quicker.
    """
    if settings.EXECUTOR == "celery":
        from evaluations.tasks import ask_workers

        ask_workers(run_id)
    else:
        drains.start_in_turn(run_id, most=settings.WORKER_THREADS)


def drain_in_process(run_id: UUID) -> None:
    """Drain the run on this process's loop and wait for that; returns at once if it is at it already."""
    if ended := drains.start(run_id):
        ended.result()


def drain_here(run_id: UUID) -> None:
    """Drain the run in this thread until it has ended."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(Drain(run_id, new_worker_name()).work())


def run_to_end(run_id: UUID) -> Run:
    """Drain the run in this thread and return it as it ended. Ctrl-C cancels it and is raised again."""
    try:
        drain_here(run_id)
    except KeyboardInterrupt:
        claims.end_run(run_id, RunState.CANCELLED)
        raise
    return Run.objects.select_related("dataset").get(pk=run_id)


def take_up_runs() -> int:
    """Drain here what nobody drains, and help with what more workers could drain; how many were begun.

    Where all places are taken, a project that has none gets one beside them, up to as many again: runs that
    hang hold up their own project only.
    """
    known = drains.run_ids
    room = settings.WORKER_THREADS - len(known)
    if room > 0:
        wanted = claims.runs_in_need(besides=known, limit=room)
    else:
        room_beside = max(room + settings.WORKER_THREADS, 0)
        wanted = claims.runs_of_unserved_projects(besides=known, limit=room_beside)
    return sum(drains.start(run_id) is not None for run_id in wanted)


def start_looking() -> None:
    """Look for runs to take up, in a thread that ends with the process. May be called twice."""
    _look_out.start()


def stop() -> None:
    """Leave all runs in order; returns at once, `wait_idle` waits. For a process that was told to end."""
    drains.stop(settings.RUN_STOP_S)


def wait_idle(timeout_s: float) -> bool:
    """Whether everything that this process executes by itself ended within `timeout_s`."""
    return drains.wait_idle(timeout_s)


class _LookOut:
    """Calls `take_up_runs` periodically."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._has_failed = False

    def start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
        threading.Thread(target=self._loop, name="look-out", daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                take_up_runs()
                self._has_failed = False
            except Exception as error:
                if not self._has_failed:  # a database may be away for long
                    log.warning("cannot look for runs, trying on: %s", error)
                self._has_failed = True
            finally:
                connections.close_all()
            time.sleep(settings.RUN_LOOK_S)


_look_out = _LookOut()
