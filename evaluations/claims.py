"""Who works on a run, on which shards, and when it ends: short transactions that any number may race for."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.utils import timezone

from evaluations import events
from evaluations.models import LIVE_STATES, Result, ResultState, Run, RunState, RunWorker, Shard
from evaluations.models.runs import RunWorkerQuerySet
from evaluations.recording import Counters, lock_run
from evaluations.worker_names import has_died

# Whoever was asked to execute a run begins within this time, or will not begin at all.
_ASKED_BEGINS = timedelta(seconds=2)
_COMMAND_BEGINS = timedelta(seconds=60)


class Step(Enum):
    """What a worker should do about a run."""

    WORK = "work"
    WAIT = "wait"  # the rest is with others, who may yet fall silent
    STOP = "stop"  # the run has ended


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part of a run after a heartbeat."""

    is_live: bool  # False: the run was stopped, or this worker was given up for dead
    slots: int  # calls at once that it may make now
    part: int  # … once the others have given up theirs
    workers: int = 1  # that drain the run, this one included


def next_step(run_id: UUID) -> Step:
    """Look at the run; when nothing is left to do it is finished here."""
    run = Run.objects.filter(pk=run_id).only("state").first()
    if run is None or not run.is_live:
        return Step.STOP
    shards = Shard.objects.filter(run_id=run_id)
    if shards.claimable().exists():
        return Step.WORK
    if not shards.open().exists():
        finish_run(run_id)
        return Step.STOP
    living_workers(run_id)
    return Step.WORK if shards.claimable().exists() else Step.WAIT


@transaction.atomic
def join_run(run_id: UUID, name: str) -> RunWorker | None:
    """Become a worker of the run, which is running now; None when it has ended meanwhile.

    May be repeated: the answer to the first time may have been lost.
    """
    run = Run.objects.select_for_update().filter(pk=run_id, state__in=LIVE_STATES).first()
    if run is None:
        return None
    living_workers(run_id)
    if run.state == RunState.QUEUED:
        Run.objects.filter(pk=run_id).update(state=RunState.RUNNING, started_at=Now())
    return RunWorker.objects.get_or_create(run_id=run_id, name=name)[0]


@transaction.atomic
def leave_run(worker: RunWorker) -> None:
    """Give back shards and budget. Does nothing when the worker was removed before."""
    lock_run(worker.run_id)
    if present := RunWorker.objects.filter(pk=worker.pk).first():
        _remove(present)


def _remove(worker: RunWorker) -> None:
    if worker.leased_usd:
        Run.objects.filter(pk=worker.run_id).update(leased_usd=F("leased_usd") - worker.leased_usd)
    worker.delete()


@transaction.atomic
def living_workers(run_id: UUID, keep: int | None = None) -> list[RunWorker]:
    """The run's workers in the order they came; those that are gone are removed.

    Gone is who fell silent, or was a process of this machine that has ended: what it held of shards and
    budget comes free. `keep` is the caller's own row: who asks is there. Locks the run.
    """
    lock_run(run_id)
    present = list(RunWorker.objects.filter(run_id=run_id).order_by("pk"))
    silent = set(RunWorker.objects.silent().filter(run_id=run_id).values_list("pk", flat=True))
    silent |= {worker.pk for worker in present if has_died(worker.name)}
    silent.discard(keep)
    for worker in present:
        if worker.pk in silent:
            _remove(worker)
    return [worker for worker in present if worker.pk is not None]


@transaction.atomic
def beat(worker: RunWorker, concurrency: int, busy: int) -> Share:
    """Show a sign of life, and learn how many calls this worker may make at once.

    That is its part of the concurrency, less what the others have not given up yet: `busy` slots come
    free with the call they are in. The lock makes sure that no two workers take the same slots.
    """
    present = living_workers(worker.run_id, keep=worker.pk)
    others = [other for other in present if other.pk != worker.pk]
    if len(others) == len(present) or not Run.objects.live().filter(pk=worker.run_id).exists():
        return Share(is_live=False, slots=0, part=0, workers=len(others))
    rank = sum(other.pk < worker.pk for other in others)
    part = _part(concurrency, rank, len(present))
    allowed = max(0, min(part, concurrency - sum(other.slots for other in others)))
    RunWorker.objects.filter(pk=worker.pk).update(heartbeat_at=Now(), slots=max(allowed, busy))
    return Share(is_live=True, slots=allowed, part=part, workers=len(present))


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
def lease_budget(worker: RunWorker, amount: Decimal) -> bool | None:
    """Reserve `amount` of the run's budget for this worker; False when so much is not left.

    None for a worker that was given up for dead.
    """
    lock_run(worker.run_id)
    if not RunWorker.objects.filter(pk=worker.pk).exists():
        return None
    fits = Q(budget_usd__gte=F("cost_usd") + F("leased_usd") + amount)
    leased = Run.objects.filter(fits, pk=worker.run_id).update(leased_usd=F("leased_usd") + amount)
    if leased:
        RunWorker.objects.filter(pk=worker.pk).update(leased_usd=F("leased_usd") + amount, is_waiting=False)
    return bool(leased)


@transaction.atomic
def return_budget(worker: RunWorker, amount: Decimal) -> bool:
    """Give `amount` of the lease back and wait for budget; whether others may give back something, too.

    What is left of the lease has been spent on cells whose results are not written yet.
    """
    lock_run(worker.run_id)
    row = RunWorker.objects.filter(pk=worker.pk)
    if row.update(leased_usd=F("leased_usd") - amount, is_waiting=True):
        Run.objects.filter(pk=worker.run_id).update(leased_usd=F("leased_usd") - amount)
    holders = RunWorker.objects.alive().filter(run_id=worker.run_id, leased_usd__gt=0, is_waiting=False)
    return holders.exists()


@transaction.atomic
def end_run(run_id: UUID, state: RunState, reason: str = "") -> bool:
    """The one way into a final state; False when the run is in one already. Exactly one caller wins."""
    run = Run.objects.select_for_update().filter(pk=run_id, state__in=LIVE_STATES).first()
    if run is None:
        return False
    run.state, run.reason, run.finished_at = state, reason.replace("\0", ""), timezone.now()
    if run.is_external:
        run.workers.all().delete()
        # What came after its last result was waiting for more.
        run.finished_at = run.results.aggregate(last=Max("created_at"))["last"] or run.finished_at
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


def runs_in_need(*, besides: Collection[UUID], limit: int) -> list[UUID]:
    """Live runs, at most `limit`, that a process should drain which drains those of `besides` already.

    Nobody drains them, long enough to be sure that nobody will; or there is something left to claim for
    one more worker. Runs that a command executes itself get no help while it lives: its environment may
    differ from ours.
    """
    _remove_dead()
    alive = _alive_workers()
    free = Exists(Shard.objects.claimable().filter(run_id=OuterRef("pk")))
    crew = alive.order_by().values("run_id").annotate(size=Count("pk")).values("size")
    helpable = free & Exists(alive) & Q(enqueued_at__isnull=False, concurrency__gt=Subquery(crew))
    runs = Run.objects.live().exclude(pk__in=besides).filter(_nobodys() | helpable)
    return list(runs.order_by("created_at").values_list("pk", flat=True)[:limit])


def runs_of_unserved_projects(*, besides: Collection[UUID], limit: int) -> list[UUID]:
    """The first run of each project that nobody drains, where none of `besides` is that project's."""
    _remove_dead()
    served = Run.objects.filter(pk__in=besides).values("project_id")
    runs = Run.objects.live().filter(_nobodys()).exclude(project_id__in=served).order_by("created_at")
    firsts: dict[int, UUID] = {}
    for project_id, run_id in runs.values_list("project_id", "pk"):
        firsts.setdefault(project_id, run_id)
    return list(firsts.values())[:limit]


def _alive_workers() -> RunWorkerQuerySet:
    return RunWorker.objects.alive().filter(run_id=OuterRef("pk"))


def _nobodys() -> Q:
    """Whether nobody drains a run, for long enough to be sure that nobody will."""
    asked = Q(enqueued_at__lt=Now() - _ASKED_BEGINS)
    return ~Exists(_alive_workers()) & (asked | Q(enqueued_at=None, created_at__lt=Now() - _COMMAND_BEGINS))


def _remove_dead() -> None:
    """Nobody has to wait for the silence of processes of this machine."""
    workers = RunWorker.objects.values_list("run_id", "name")
    for run_id in {run_id for run_id, name in workers if has_died(name)}:
        living_workers(run_id)
