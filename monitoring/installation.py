"""What no process knows by itself, e.g. Redis and the runs: looked at by one process of a machine for all.

Its thread looks once an interval, with a bound on every question; a scrape reads only what it found.
Whoever holds a lock on a file in PROMETHEUS_MULTIPROC_DIR is the one; the kernel takes it from the dead.
"""

import fcntl
import logging
import os
import threading
import time
from pathlib import Path

from django.db import connections

from monitoring import database, machine, redis
from monitoring.multiprocess import merge_dead

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
_LOCK = "watcher.lock"


def watch(kind: str) -> None:
    """Look from now on if this process is the one, or becomes it. Beat, which has most time, asks first."""
    threading.Thread(target=_watch, args=(kind != "beat",), name="installation-watcher", daemon=True).start()


def _watch(is_patient: bool) -> None:
    if folder := _shared_folder():
        if is_patient:
            time.sleep(INTERVAL_S)
        _wait_for_turn(folder)
    while True:
        look()
        time.sleep(INTERVAL_S)


def _wait_for_turn(folder: Path) -> None:
    """Blocks until no other process looks; the lock is held until this process ends."""
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def look() -> None:
    """Bring all gauges up to date; what fails is logged and harms nothing else."""
    for each in (machine.look, redis.look, database.look, _tidy):
        try:
            each()
        except Exception:
            logger.exception("The installation could not be looked at")
        finally:
            connections.close_all()


def _tidy() -> None:
    if folder := _shared_folder():
        merge_dead(folder)


def _shared_folder() -> Path | None:
    """Where the processes of this machine count; None when this is the only one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None
