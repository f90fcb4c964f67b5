"""Writes to data sets and runs."""

from evaluations.services.datasets import (
    add_cases,
    create_dataset,
    describe_dataset,
    import_cases,
    lock_dataset,
)
from evaluations.services.external import (
    delete_external_run,
    describe_external_run,
    link_cells,
    open_run,
)
from evaluations.services.items import name_case, put_item, put_items
from evaluations.services.outcomes import Call, add_calls, record_outcomes, tell_progress
from evaluations.services.runs import cancel_run, resume_run, retry_errors, start_run
from evaluations.services.verdicts import give_scores, settle_scores

__all__ = [
    "Call",
    "add_calls",
    "add_cases",
    "cancel_run",
    "create_dataset",
    "delete_external_run",
    "describe_dataset",
    "describe_external_run",
    "give_scores",
    "import_cases",
    "link_cells",
    "lock_dataset",
    "name_case",
    "open_run",
    "put_item",
    "put_items",
    "record_outcomes",
    "resume_run",
    "retry_errors",
    "settle_scores",
    "start_run",
    "tell_progress",
]
