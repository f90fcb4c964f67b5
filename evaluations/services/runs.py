"""Writes to runs: start, cancel, resume, retry."""

from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Now

from autoforge.auth import Actor
from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations import executor
from evaluations.claims import end_run
from evaluations.models import Result, ResultState, Run, RunState, Shard
from evaluations.schemas import NewRun
from evaluations.services.freezing import check_budget, check_prices, freeze, shards_of
from prompts.llm.providers.base import Endpoint

_SHARD_BATCH = 1_000


@transaction.atomic
def start_run(project: Project, new: NewRun, *, actor: Actor, enqueue: bool = True) -> Run:
    """The experiment, frozen and queued. Raises InvalidInput.

    `enqueue=False` leaves it to the caller to execute it, with `executor.run_to_end`.
    """
    frozen = freeze(project, new)
    run = Run.objects.create(
        project=project,
        dataset=frozen.dataset,
        name=new.name,
        prompts=frozen.prompts,
        endpoints=frozen.endpoints,
        judges=frozen.judges,
        scorers=new.scorers,
        threshold=new.threshold,
        concurrency=new.concurrency,
        repeats=new.repeats,
        budget_usd=new.budget_usd,
        use_cache=new.use_cache,
        seed=new.seed,
        last_case_id=frozen.last_case_id,
        total=frozen.case_count * len(frozen.prompts) * len(frozen.endpoints) * new.repeats,
        created_by=actor.name,
        enqueued_at=Now() if enqueue else None,
    )
    Shard.objects.bulk_create(shards_of(run), batch_size=_SHARD_BATCH)
    if enqueue:
        transaction.on_commit(partial(executor.enqueue, run.pk), robust=True)
    return run


def cancel_run(run: Run) -> Run:
    """No cell is started any more; calls in flight end and are recorded. Raises Conflict if it has ended."""
    if not end_run(run.pk, RunState.CANCELLED):
        raise Conflict(f"The run has ended already: it is {_fresh(run).state}.")
    return _fresh(run)


@transaction.atomic
def resume_run(run: Run, *, budget_usd: Decimal | None = None) -> Run:
    """Queue what is missing of a run that was stopped. Raises Conflict, or InvalidInput for the budget."""
    locked = _locked(run)
    _require_ours(locked)
    if locked.state not in (RunState.FAILED, RunState.CANCELLED, RunState.OVER_BUDGET):
        raise Conflict(f"Only a failed, cancelled or over_budget run can be resumed; it is {locked.state}.")
    check_budget(budget_usd)
    limit = budget_usd or locked.budget_usd
    if limit is not None and limit <= locked.cost_usd:
        raise InvalidInput(
            f"${locked.cost_usd.normalize():f} of ${limit.normalize():f} are spent: raise budget_usd."
        )
    if limit is not None:
        check_prices(msgspec.convert(frozen, Endpoint) for frozen in locked.endpoints + locked.judges)
    _queue(locked, budget_usd=limit)
    return _fresh(run)


@transaction.atomic
def retry_errors(run: Run) -> Run:
    """Forget the errors of a run that has ended and queue their cells. Raises Conflict.

    What the failed cells cost stays in the run's cost: the money is spent.
    """
    locked = _locked(run)
    _require_ours(locked)
    if locked.is_live:
        raise Conflict(f"The run is {locked.state}: wait until it has ended, or cancel it.")
    errors = Result.objects.filter(run=locked, state=ResultState.ERROR)
    here = errors.filter(case__gte=OuterRef("first_case_id"), case__lte=OuterRef("last_case_id"))
    locked.shards.filter(Exists(here)).update(is_done=False, worker=None)
    count, _ = errors.delete()
    if not count:
        raise Conflict("The run has no errors.")
    _queue(locked, errors=F("errors") - count, done=F("done") - count)
    return _fresh(run)


def _queue(run: Run, **changes: Any) -> None:
    """Back to the start line; `active_s` keeps what the periods of work so far took."""
    Run.objects.filter(pk=run.pk).update(
        state=RunState.QUEUED,
        reason="",
        active_s=run.wall_s or 0.0,
        started_at=None,
        finished_at=None,
        enqueued_at=Now(),
        **changes,
    )
    transaction.on_commit(partial(executor.enqueue, run.pk), robust=True)


def _require_ours(run: Run) -> None:
    if run.is_external:
        raise Conflict("The run is executed elsewhere: start it there again, under the same name.")


def _locked(run: Run) -> Run:
    return Run.objects.select_for_update().get(pk=run.pk)


def _fresh(run: Run) -> Run:
    return Run.objects.select_related("dataset").get(pk=run.pk)
