"""What the installation's numbers were: history at falling resolution."""

from typing import Any

from django.db import models


class MetricSample(models.Model):
    """The installation's numbers at one moment, by their dotted names: totals since its processes started,
    and, where a number tells how things are, the worst since the sample before.
    """

    resolution_s = models.PositiveSmallIntegerField(help_text="The seconds from one such sample to the next.")
    at = models.DateTimeField(help_text="A multiple of the resolution.")
    numbers: Any = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["resolution_s", "at"], name="metric_sample_once")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} / {self.resolution_s} s"
