"""What grows in the database and is of no use after a while: each app says how its rows are pruned."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

logger = logging.getLogger(__name__)

# Rows deleted by one statement: others get their turn in between.
BATCH_ROWS = 1_000

# Returns how many rows it has deleted; several processes may do it at once.
Chore = Callable[[], int]
_chores: dict[str, Chore] = {}


def add_chore(name: str, chore: Chore) -> None:
    """Have `chore` done every AUTOFORGE_HOUSEKEEPING seconds; `name` is a plural for the log."""
    _chores[name] = chore


def keep_house() -> dict[str, int]:
    """Do all chores; rows deleted by name. One that fails is logged and keeps no other from being done."""
    return {name: _done(name, chore) for name, chore in list(_chores.items())}


def _done(name: str, chore: Chore) -> int:
    try:
        count = chore()
    except Exception:
        logger.exception("Old %s could not be deleted", name)
        return 0
    if count:
        logger.info("Deleted %d old %s", count, name)
    return count


def days_ago(name: str) -> datetime | None:
    """The moment before which `name` is deleted by KEEP_DAYS; None when it is kept for ever (0)."""
    keep = settings.KEEP_DAYS[name]
    return timezone.now() - keep if keep else None


def delete_in_batches(rows: QuerySet[Any]) -> int:
    """Delete `rows`, BATCH_ROWS at a time; how many."""
    deleted = 0
    while batch := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH_ROWS]):
        rows.model._default_manager.filter(pk__in=batch).delete()
        deleted += len(batch)
    return deleted
