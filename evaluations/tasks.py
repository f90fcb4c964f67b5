"""Runs as Celery tasks: messages that make workers begin at once.

The truth is in the database: a message that is lost delays a run by seconds, one too many does nothing.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from django.conf import settings
from kombu.exceptions import OperationalError

from evaluations import executor

log = logging.getLogger(__name__)

_sender = ThreadPoolExecutor(1, thread_name_prefix="ask-workers")
_places = threading.Semaphore(4)


# Acknowledged as it begins: whoever takes over from a dead worker finds the run in the database.
@shared_task(name="evaluations.drain_run", ignore_result=True, acks_late=False)
def drain_run(run_id: str) -> None:
    """Drain the run in this process, once whatever the number of messages; returns when it is left."""
    executor.drain_in_process(UUID(run_id))


def ask_workers(run_id: UUID) -> None:
    """One message for each worker process, by a thread of its own: nobody waits for a broker.

    Where too many wait already this one is left out: workers look for runs, too.
    """
    if _places.acquire(blocking=False):
        _sender.submit(_ask, run_id).add_done_callback(lambda _: _places.release())


def _ask(run_id: UUID) -> None:
    try:
        with drain_run.app.producer_or_acquire() as producer:
            for _ in range(settings.WORKER_PROCESSES):
                drain_run.apply_async([str(run_id)], producer=producer, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("run %s waits until a worker looks for it, the broker does not answer: %s", run_id, error)


@worker_ready.connect
def _look_for_runs(**_: Any) -> None:
    executor.start_looking()


@worker_shutting_down.connect
def _leave_runs(**_: Any) -> None:
    # A signal handler must not wait for locks that the interrupted code may hold.
    threading.Thread(target=executor.stop, name="stop-runs").start()


@worker_shutdown.connect
def _wait_until_left(**_: Any) -> None:
    executor.wait_idle(settings.RUN_STOP_S + 2)
