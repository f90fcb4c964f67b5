"""Rows of runs that are of no use after a while."""

from uuid import UUID

from django.db import transaction

from autoforge.housekeeping import add_chore, days_ago, delete_in_batches
from evaluations.models import LIVE_STATES, Run, RunWorker


def register() -> None:
    """Once a process."""
    add_chore("workers of ended runs", delete_workers)
    add_chore("runs", delete_runs)


def delete_workers() -> int:
    """Whoever worked on a run and left no trace of leaving."""
    before = days_ago("workers")
    if before is None:
        return 0
    silent = RunWorker.objects.filter(heartbeat_at__lt=before)
    return delete_in_batches(silent.exclude(run__state__in=LIVE_STATES))


def delete_runs() -> int:
    """Runs that ended long ago, with their results."""
    before = days_ago("runs")
    if before is None:
        return 0
    ended = Run.objects.filter(finished_at__lt=before).exclude(state__in=LIVE_STATES)
    return sum(_delete_run(run_id) for run_id in ended.values_list("pk", flat=True))


@transaction.atomic
def _delete_run(run_id: UUID) -> bool:
    """False when somebody resumed it or deleted it meanwhile."""
    run = Run.objects.select_for_update().filter(pk=run_id).exclude(state__in=LIVE_STATES).first()
    if run is not None:
        run.delete()
    return run is not None
