"""What other systems' clients call our cases, cells and scores."""

from typing import Any

from django.db import models
from django.utils import timezone

from autoforge.models import Project
from evaluations.models.datasets import Case
from evaluations.models.runs import Result, Run


class ExternalCase(models.Model):
    """A case under the id that another system's clients gave it, however often it is replaced.

    Replaced cases keep the id, so that their results can tell it: one of those with the same id is current.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    case = models.OneToOneField(Case, on_delete=models.CASCADE, related_name="external")
    is_current = models.BooleanField(default=True, help_text="Whether the id names this case now.")
    is_plain = models.BooleanField(default=False, help_text="Its input is no object, but vars.input alone.")
    source_trace_id = models.CharField(max_length=200, blank=True)
    source_observation_id = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "key"],
                condition=models.Q(is_current=True),
                name="external_case_once_a_project",
            )
        ]

    def __str__(self) -> str:
        return self.key


class ExternalCell(models.Model):
    """A cell that is executed elsewhere, by the trace that tells of it.

    `calls` are the model calls seen so far, by their span; empty again once there is a result.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    trace_id = models.CharField(max_length=64)
    observation_id = models.CharField(max_length=64, blank=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="external_cells")
    case = models.ForeignKey(Case, on_delete=models.CASCADE, related_name="+")
    repeat = models.PositiveIntegerField()
    result = models.OneToOneField(Result, on_delete=models.CASCADE, null=True, related_name="external")
    calls: Any = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "trace_id", "observation_id"], name="external_cell_once_a_trace"
            ),
            models.UniqueConstraint(fields=["run", "case", "repeat"], name="external_cell_once_a_run"),
        ]

    def __str__(self) -> str:
        return f"{self.trace_id}/{self.observation_id}"


class PendingScore(models.Model):
    """A score that came before what it judges; kept for a day."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+", db_index=False)
    subject = models.CharField(max_length=200, help_text="A trace's id, or a run's external one.")
    observation_id = models.CharField(max_length=64, blank=True)
    key = models.CharField(max_length=200)
    row: Any = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="pending_score_once")]
        indexes = [
            models.Index(fields=["project", "subject"], name="pending_score_by_subject"),
            models.Index(fields=["created_at"], name="pending_score_by_age"),
        ]

    def __str__(self) -> str:
        return self.key
