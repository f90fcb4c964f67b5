"""Data sets, and runs of prompts over them."""

import uuid
from decimal import Decimal

from django.db import models
from django.db.models.functions import Now

from autoforge.models import Project


class Dataset(models.Model):
    """A named list of cases."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    case_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="dataset_name_once_a_project")
        ]

    def __str__(self) -> str:
        return self.name


class Case(models.Model):
    """One input with what is expected of it. Immutable: a run freezes its cases by their ids.

    `scorers` are assertions of this case alone; they are applied after the run's own.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="cases")
    vars = models.JSONField(default=dict)
    expected = models.JSONField(null=True)
    metadata = models.JSONField(default=dict)
    scorers = models.JSONField(default=list)

    class Meta:
        indexes = [models.Index(fields=["dataset", "id"], name="case_in_order")]

    def __str__(self) -> str:
        return f"{self.dataset_id}/{self.pk}"


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OVER_BUDGET = "over_budget"


class Run(models.Model):
    """An experiment, frozen at its start, and how far it has come.

    `prompts`, `endpoints` and `scorers` are snapshots (endpoints without their secret). A cell is one
    (case, column, repeat); column = prompt index × number of endpoints + endpoint index.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="runs")
    name = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=11, choices=RunState, default=RunState.QUEUED)
    prompts = models.JSONField()
    endpoints = models.JSONField()
    scorers = models.JSONField(default=list)
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
    leased_usd = models.DecimalField(max_digits=18, decimal_places=9, default=Decimal(0))
    call_ms = models.FloatField(default=0)
    reason = models.TextField(blank=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["project", "-created_at", "id"], name="run_newest_first"),
            models.Index(fields=["state"], name="run_by_state"),
        ]

    def __str__(self) -> str:
        return self.name or str(self.pk)

    @property
    def columns(self) -> int:
        """How many prompt × endpoint columns the run has."""
        return len(self.prompts) * len(self.endpoints)


class RunWorker(models.Model):
    """A process that drains a run. Its heartbeat keeps its shards; the concurrency is shared among them."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="workers")
    name = models.CharField(max_length=100)
    heartbeat_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="worker_once_a_run")]

    def __str__(self) -> str:
        return self.name


class Shard(models.Model):
    """A slice of a run's cases, with every column and repeat of them, that one worker executes."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="shards")
    number = models.PositiveIntegerField()
    first_case_id = models.BigIntegerField()
    last_case_id = models.BigIntegerField()
    worker = models.ForeignKey(RunWorker, on_delete=models.SET_NULL, null=True, related_name="shards")
    is_done = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="shard_number_once_a_run")]
        indexes = [models.Index(fields=["run", "is_done", "number"], name="shard_claimable")]

    def __str__(self) -> str:
        return f"{self.run_id}#{self.number}"


class ResultState(models.TextChoices):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"


class Result(models.Model):
    """One executed cell. Exactly one row a cell, whoever writes it."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="results")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="+")
    column = models.PositiveIntegerField()
    repeat = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=6, choices=ResultState)
    output = models.TextField(blank=True)
    score = models.FloatField(null=True)
    scores = models.JSONField(default=list)
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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "case", "column", "repeat"], name="one_result_per_cell"),
        ]
        indexes = [models.Index(fields=["run", "state", "id"], name="result_by_state")]

    def __str__(self) -> str:
        return f"{self.run_id}/{self.case_id}/{self.column}/{self.repeat}"
