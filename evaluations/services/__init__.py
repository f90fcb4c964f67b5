"""Writes to data sets and runs."""

from evaluations.services.datasets import add_cases, create_dataset, import_cases
from evaluations.services.runs import cancel_run, resume_run, retry_errors, start_run

__all__ = [
    "add_cases",
    "cancel_run",
    "create_dataset",
    "import_cases",
    "resume_run",
    "retry_errors",
    "start_run",
]
