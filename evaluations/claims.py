"""Who works on a run, on which shards, and when it ends: short transactions that any number may race for."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Now
from django.utils import timezone

from evaluations import events
from evaluations.models import LIVE_STATES, Result, ResultState, Run, RunState, RunWorker, Shard
from evaluations.recording import Counters

# A queued run waits for a free worker; after this long its message may be lost and is sent again.
_LOST_AFTER = timedelta(seconds=60)
_MAX_RECOVERED = 100


class Step(Enum):
    """What a worker should do about a run."""

    WORK = "work"
    WAIT = "wait"  # the rest is with others, who may yet fall silent
    STOP = "stop"  # the run has ended


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part of a run after a heartbeat."""

    is_live: bool  # False: the run was stopped, or this worker was given up for dead
    lanes: int  # what it may use now
    part: int  # what it may use once the others have given up theirs


def next_step(run_id: UUID) -> Step:
    """Look at the run; when nothing is left to do it is finished here."""
    run = Run.objects.filter(pk=run_id).only("state").first()
    if run is None or not run.is_live:
        return Step.STOP
    shards = Shard.objects.filter(run_id=run_id)
    if shards.claimable().exists():
        return Step.WORK
    if shards.open().exists():
        return Step.WAIT
    finish_run(run_id)
    return Step.STOP


@transaction.atomic
def join_run(run_id: UUID, name: str) -> RunWorker | None:
    """Become a worker of the run, which is running now; None when it has ended meanwhile.

    Workers that fell silent are removed: their shards and what they leased of the budget come free.
    """
    run = Run.objects.select_for_update().filter(pk=run_id, state__in=LIVE_STATES).first()
    if run is None:
        return None
    for silent in RunWorker.objects.silent().filter(run_id=run_id):
        _remove(silent)
    if run.state == RunState.QUEUED:
        Run.objects.filter(pk=run_id).update(state=RunState.RUNNING, started_at=Now())
    return RunWorker.objects.create(run_id=run_id, name=name)


@transaction.atomic
def leave_run(worker: RunWorker) -> None:
    """Give back shards and budget. Does nothing when the worker was removed before."""
    if present := RunWorker.objects.select_for_update().filter(pk=worker.pk).first():
        _remove(present)


def _remove(worker: RunWorker) -> None:
    if worker.leased_usd:
        Run.objects.filter(pk=worker.run_id).update(leased_usd=F("leased_usd") - worker.leased_usd)
    worker.delete()


@transaction.atomic
def beat(worker: RunWorker, concurrency: int, busy: int) -> Share:
    """Show a sign of life, and learn how many cells this worker may execute at once.

    That is its part of the concurrency, less what the others have not given up yet: `busy` lanes end
    with the call they are in. The lock makes sure that no two workers take the same lanes.
    """
    run = Run.objects.select_for_update().filter(pk=worker.run_id, state__in=LIVE_STATES).first()
    alive = RunWorker.objects.alive().filter(run_id=worker.run_id).order_by("pk")
    lanes = dict(alive.values_list("pk", "lanes"))
    if run is None or not RunWorker.objects.filter(pk=worker.pk).exists():
        return Share(is_live=False, lanes=0, part=0)
    others = sum(used for pk, used in lanes.items() if pk != worker.pk)
    rank = sum(pk < worker.pk for pk in lanes)
    part = _part(concurrency, rank, len(lanes.keys() | {worker.pk}))
    allowed = max(0, min(part, concurrency - others))
    RunWorker.objects.filter(pk=worker.pk).update(heartbeat_at=Now(), lanes=max(allowed, busy))
    return Share(is_live=True, lanes=allowed, part=part)


def _part(concurrency: int, rank: int, workers: int) -> int:
    """Parts that sum up to `concurrency`: the first ones take the remainder."""
    whole, rest = divmod(concurrency, workers)
    return whole + (rank < rest)


def claim_shard(worker: RunWorker) -> Shard | None:
    """The first free shard, or one whose worker fell silent. Safe with any number of workers."""
    shards = Shard.objects.filter(run_id=worker.run_id)
    while shard := shards.claimable().order_by("number").first():
        if Shard.objects.claimable().filter(pk=shard.pk).update(worker=worker):
            return shard
        # Another worker was faster between the two queries: look again.
    return None


@transaction.atomic
def lease_budget(worker: RunWorker, amount: Decimal) -> bool:
    """Reserve `amount` of the run's budget for this worker; False when so much is not left."""
    fits = Q(budget_usd__gte=F("cost_usd") + F("leased_usd") + amount)
    leased = Run.objects.filter(fits, pk=worker.run_id).update(leased_usd=F("leased_usd") + amount)
    if leased:
        RunWorker.objects.filter(pk=worker.pk).update(leased_usd=F("leased_usd") + amount)
    return bool(leased)


@transaction.atomic
def return_budget(worker: RunWorker, amount: Decimal) -> bool:
    """Give `amount` of the lease back; whether other workers hold leases still."""
    if amount and RunWorker.objects.filter(pk=worker.pk).update(leased_usd=F("leased_usd") - amount):
        Run.objects.filter(pk=worker.run_id).update(leased_usd=F("leased_usd") - amount)
    return RunWorker.objects.alive().filter(run_id=worker.run_id, leased_usd__gt=0).exists()


@transaction.atomic
def end_run(run_id: UUID, state: RunState, reason: str = "") -> bool:
    """The one way into a final state; False when the run is in one already. Exactly one caller wins."""
    run = Run.objects.select_for_update().filter(pk=run_id, state__in=LIVE_STATES).first()
    if run is None:
        return False
    run.state, run.reason, run.finished_at = state, reason.replace("\0", ""), timezone.now()
    run.save(update_fields=["state", "reason", "finished_at"])
    transaction.on_commit(partial(_tell_end, run))
    return True


@transaction.atomic
def finish_run(run_id: UUID) -> bool:
    """End a run that has no open shard, with its counters taken from its results."""
    run = Run.objects.select_for_update().filter(pk=run_id, state__in=LIVE_STATES).first()
    if run is None or run.shards.open().exists():
        return False
    Run.objects.filter(pk=run_id).update(**counted(run_id))
    return end_run(run_id, RunState.FINISHED)


def counted(run_id: UUID) -> dict[str, int]:
    """The counters of a run, counted from its results."""
    by_state = {state: Count("pk", filter=Q(state=state)) for state in ResultState}
    sums = Result.objects.filter(run_id=run_id).aggregate(
        passed=by_state[ResultState.PASSED],
        failed=by_state[ResultState.FAILED],
        errors=by_state[ResultState.ERROR],
        cache_hits=Count("pk", filter=Q(cached=True)),
    )
    return sums | {"done": sums["passed"] + sums["failed"] + sums["errors"]}


def _tell_end(run: Run) -> None:
    events.emit(progress_of(run.pk, run))
    events.emit(events.RunEnded(project_id=run.project_id, run_id=run.pk, state=run.state))


def progress_of(run_id: UUID, run: Run | Counters) -> events.RunProgressed:
    """The run's counters as a message."""
    return events.RunProgressed(
        project_id=run.project_id,
        run_id=run_id,
        state=run.state,
        total=run.total,
        done=run.done,
        passed=run.passed,
        failed=run.failed,
        errors=run.errors,
        cache_hits=run.cache_hits,
        cost_usd=f"{run.cost_usd:.9f}",
        saved_usd=f"{run.saved_usd:.9f}",
    )


def take_abandoned() -> list[UUID]:
    """Live runs that a dead worker or a broken queue has left behind, each handed out once."""
    died = Q(state=RunState.RUNNING, enqueued_at__lt=Now() - timedelta(seconds=settings.RUN_SHARD_SILENT_S))
    lost = Q(state=RunState.QUEUED, enqueued_at__lt=Now() - _LOST_AFTER)
    waiting = Run.objects.abandoned().filter(died | lost).order_by("created_at").values_list("pk", flat=True)
    return [
        run_id
        for run_id in waiting[:_MAX_RECOVERED]
        if Run.objects.filter(died | lost, pk=run_id).update(enqueued_at=Now())
    ]
