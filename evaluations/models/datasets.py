"""Data sets: named lists of cases."""

from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from autoforge.models import Project


class Dataset(models.Model):
    """A named list of cases."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    metadata: Any = models.JSONField(null=True, blank=True)
    case_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="dataset_name_once_a_project")
        ]

    def __str__(self) -> str:
        return self.name


class CaseQuerySet(models.QuerySet["Case"]):
    """Reads of cases."""

    def current(self) -> "CaseQuerySet":
        """What a run that started now would take."""
        return self.filter(superseded_by=None)

    def frozen_at(self, last_case_id: int) -> "CaseQuerySet":
        """What was current when `last_case_id` was the highest id of the data set."""
        was_current = Q(superseded_by=None) | Q(superseded_by__gt=last_case_id)
        return self.filter(was_current, pk__lte=last_case_id)


class Case(models.Model):
    """One input with what is expected of it. Immutable: a run freezes its cases by their ids.

    `scorers` are assertions of this case alone; they are applied after the run's own. A changed case is a
    new one that supersedes it: runs that were started before keep the old one.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="cases", db_index=False)
    vars: Any = models.JSONField(default=dict)
    expected: Any = models.JSONField(null=True)
    metadata: Any = models.JSONField(default=dict)
    scorers: Any = models.JSONField(default=list)
    superseded_by = models.BigIntegerField(
        null=True, help_text="The first id that knows of its end: a new case, or its own when it is archived."
    )

    objects = CaseQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["dataset", "id"], name="case_in_order")]

    def __str__(self) -> str:
        return f"{self.dataset_id}/{self.pk}"
