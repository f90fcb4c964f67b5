"""Runs of prompts over data sets: what was started, who works on it, and what came of it."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, FloatField, QuerySet, Value
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from autoforge.models import Project
from evaluations.models.datasets import Case, Dataset


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OVER_BUDGET = "over_budget"


# Somebody is, or will be, at work on a run in one of these.
LIVE_STATES = (RunState.QUEUED, RunState.RUNNING)


class RunQuerySet(models.QuerySet["Run"]):
    """Reads of runs."""

    def live(self) -> "RunQuerySet":
        """Runs that are to be worked on."""
        return self.filter(state__in=LIVE_STATES)

    def for_show(self) -> "RunQuerySet":
        """With what a representation needs, and without the snapshots that it leaves out."""
        return self.select_related("dataset").defer("judges", "scorers", "about")


class Run(models.Model):
    """An experiment, frozen at its start, and how far it has come.

    `prompts`, `endpoints`, `judges` (endpoints that scorers name) and `scorers` are snapshots, endpoints
    without their secret. A cell is one
    (case, column, repeat); column = prompt index × number of endpoints + endpoint index.

    A run with an `external_id` is executed elsewhere: it has no shards, and one worker row that lives for as
    long as news may be expected. Its only column is named after what was seen of it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs", db_index=False)
    # RESTRICT: a data set with runs stays, unless the whole project goes.
    dataset = models.ForeignKey(Dataset, on_delete=models.RESTRICT, related_name="runs")
    name = models.CharField(max_length=200, blank=True)
    external_id = models.CharField(
        max_length=200, null=True, help_text="What who executes it calls it; empty: it is executed here."
    )
    state = models.CharField(max_length=11, choices=RunState, default=RunState.QUEUED)
    prompts: Any = models.JSONField()
    endpoints: Any = models.JSONField()
    judges: Any = models.JSONField(default=list)
    scorers: Any = models.JSONField(default=list)
    scores: Any = models.JSONField(default=list, help_text="Verdicts on the run as a whole.")
    about: Any = models.JSONField(
        null=True, help_text="What who executes it says of it: its description and metadata."
    )
    verdicts = models.PositiveIntegerField(
        default=0, help_text="How many came from elsewhere: grows with each, also where nothing else does."
    )
    threshold = models.FloatField(null=True)
    concurrency = models.PositiveIntegerField()
    repeats = models.PositiveIntegerField(default=1)
    budget_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    use_cache = models.BooleanField(default=True)
    seed = models.BigIntegerField(null=True)
    last_case_id = models.BigIntegerField()
    total = models.PositiveIntegerField()
    done = models.PositiveIntegerField(default=0)
    passed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)
    cache_hits = models.PositiveIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=18, decimal_places=9, default=Decimal(0))
    saved_usd = models.DecimalField(max_digits=18, decimal_places=9, default=Decimal(0))
    leased_usd = models.DecimalField(
        max_digits=18, decimal_places=9, default=Decimal(0), help_text="The sum of its workers' leases."
    )
    unfinished_usd: Any = models.JSONField(
        default=dict,
        help_text="Of its cost: what each worker, by its id, paid for cells that have no result.",
    )
    call_ms = models.FloatField(default=0, help_text="The time of all model calls, cached ones apart.")
    reason = models.TextField(blank=True)
    created_by = models.CharField(max_length=150)
    # Not the database's default: SQLite writes that with fewer digits, and pages are cut by comparing text.
    created_at = models.DateTimeField(default=timezone.now)
    enqueued_at = models.DateTimeField(
        null=True, help_text="When workers were asked to execute it; empty: a command does it by itself."
    )
    started_at = models.DateTimeField(null=True, help_text="Start of the present or last period of work.")
    active_s = models.FloatField(default=0, help_text="Duration of the periods of work before that one.")
    finished_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["project", "-created_at", "id"], name="run_newest_first"),
            models.Index(fields=["state"], name="run_by_state"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["project", "external_id"], name="external_run_once_a_project")
        ]

    def __str__(self) -> str:
        return self.name or str(self.pk)

    @property
    def is_external(self) -> bool:
        """Whether somebody else executes it."""
        return self.external_id is not None

    @property
    def columns(self) -> int:
        """How many prompt × endpoint columns the run has."""
        return len(self.prompts) * len(self.endpoints)

    @property
    def cells_per_case(self) -> int:
        return self.columns * self.repeats

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES

    def column_parts(self, column: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The prompt and the endpoint snapshot of a column."""
        prompt, endpoint = divmod(column, len(self.endpoints))
        return self.prompts[prompt], self.endpoints[endpoint]

    @property
    def wall_s(self) -> float | None:
        """How long the run has been worked on; pauses between cancel and resume do not count."""
        if self.started_at is None:
            return None
        end: datetime = self.finished_at or timezone.now()
        return self.active_s + max((end - self.started_at).total_seconds(), 0.0)

    def frozen_cases(self) -> QuerySet[Case]:
        """The cases the run was started with, in order."""
        return Case.objects.frozen_at(self.last_case_id).filter(dataset_id=self.dataset_id).order_by("pk")


def _silent_since() -> Any:
    return Now() - timedelta(seconds=settings.RUN_SHARD_SILENT_S)


class RunWorkerQuerySet(models.QuerySet["RunWorker"]):
    """Reads of workers; the database's clock decides, the machines' clocks may differ."""

    def alive(self) -> "RunWorkerQuerySet":
        return self.filter(heartbeat_at__gte=_silent_since())

    def silent(self) -> "RunWorkerQuerySet":
        return self.filter(heartbeat_at__lt=_silent_since())


class RunWorker(models.Model):
    """A process that drains a run. Its heartbeat keeps its shards; the concurrency is shared among them."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="workers", db_index=False)
    name = models.CharField(max_length=100)
    heartbeat_at = models.DateTimeField(db_default=Now())
    slots = models.PositiveIntegerField(default=0, help_text="How many calls it may be making.")
    leased_usd = models.DecimalField(
        max_digits=18, decimal_places=9, default=Decimal(0), help_text="Its part of the run's budget."
    )
    is_waiting = models.BooleanField(
        default=False, help_text="For budget; it makes no call, so nothing of its lease comes back."
    )

    objects = RunWorkerQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="worker_once_a_run")]

    def __str__(self) -> str:
        return self.name


class ShardQuerySet(models.QuerySet["Shard"]):
    """Reads of shards."""

    def open(self) -> "ShardQuerySet":
        return self.filter(is_done=False)

    def claimable(self) -> "ShardQuerySet":
        """Open shards that no living worker has."""
        return self.open().exclude(worker__in=RunWorker.objects.alive())


class Shard(models.Model):
    """A slice of a run's cases, with every column and repeat of them, that one worker executes."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="shards", db_index=False)
    number = models.PositiveIntegerField()
    first_case_id = models.BigIntegerField()
    last_case_id = models.BigIntegerField()
    # No constraint: a worker may be removed, being thought dead, at the moment in which it claims a shard.
    # Such a claim is worth nothing.
    worker = models.ForeignKey(
        RunWorker, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False
    )
    is_done = models.BooleanField(default=False)

    objects = ShardQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="shard_number_once_a_run")]
        indexes = [models.Index(fields=["run", "is_done", "number"], name="shard_claimable")]

    def __str__(self) -> str:
        return f"{self.run_id}#{self.number}"


class ResultState(models.TextChoices):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"


class ResultQuerySet(models.QuerySet["Result"]):
    """Reads of results."""

    def in_columns(self, columns: Sequence[int]) -> "ResultQuerySet":
        return self.filter(column__in=columns)

    def nulls_last(self, field: str, *, descending: bool) -> "ResultQuerySet":
        """With `<field>_key`: the value, or one that sorts after all others in that direction."""
        last = -1.0 if descending else 1e300
        key = Coalesce(F(field), Value(last), output_field=FloatField())
        return self.annotate(**{f"{field}_key": key})


class Result(models.Model):
    """One executed cell. Exactly one row a cell, whoever writes it."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="results", db_index=False)
    case = models.ForeignKey(Case, on_delete=models.RESTRICT, related_name="+")
    column = models.PositiveIntegerField()
    repeat = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=6, choices=ResultState)
    output = models.TextField(blank=True)
    score = models.FloatField(null=True)
    scores: Any = models.JSONField(default=list)
    latency_ms = models.FloatField(null=True)
    ttft_ms = models.FloatField(null=True)
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cost_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    saved_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    cached = models.BooleanField(default=False)
    finish_reason = models.CharField(max_length=40, blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects = ResultQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "case", "column", "repeat"], name="one_result_per_cell"),
        ]
        indexes = [
            models.Index(fields=["run", "id"], name="result_in_order"),
            models.Index(fields=["run", "state", "id"], name="result_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.run_id}/{self.case_id}/{self.column}/{self.repeat}"
