"""Runs as Celery tasks: one for each worker slot that should drain a run."""

from typing import Any
from uuid import UUID

from celery import shared_task
from celery.signals import worker_ready

from evaluations import executor


@shared_task(name="evaluations.drain_run", ignore_result=True)
def drain_run(run_id: str) -> None:
    """Drain the run in this worker slot; returns when the run has ended."""
    executor.drain_here(UUID(run_id))


@worker_ready.connect
def start_recovery(**_: Any) -> None:
    """A worker that comes up takes over what dead ones left."""
    executor.start_recovery()
