"""Writes finished cells: one INSERT a batch, whose answer names the new rows, so counters are exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import F

from evaluations.models import Result, ResultState, Run, RunWorker, Shard


class FinishedCell(msgspec.Struct, kw_only=True, gc=False):
    """A cell's outcome: the columns of its row, by their names."""

    case_id: int
    column: int
    repeat: int
    state: str
    output: str = ""
    score: float | None = None
    scores: list[Any] = []
    latency_ms: float | None = None
    ttft_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None
    saved_usd: Decimal | None = None
    cached: bool = False
    finish_reason: str = ""
    error_code: str = ""
    error: str = ""

    @property
    def key(self) -> tuple[int, int, int]:
        return self.case_id, self.column, self.repeat


class Counters(msgspec.Struct, frozen=True):
    """A run as it stands; the fields are columns of its table."""

    project_id: int
    state: str
    total: int
    done: int
    passed: int
    failed: int
    errors: int
    cache_hits: int
    cost_usd: Decimal | float
    saved_usd: Decimal | float


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a batch has changed: the ids of the new rows by cell, and the run's counters after it."""

    ids: dict[tuple[int, int, int], int]
    counters: Counters
    workers: int  # that drain the run


@transaction.atomic
def record_batch(
    worker: RunWorker,
    cells: Sequence[FinishedCell],
    done_shards: Sequence[int],
    *,
    has_budget: bool = False,
    unfinished_usd: Decimal = Decimal(0),
) -> Recorded:
    """Write `cells`, count those that nobody wrote before, and mark shards whose last cell this was.

    With a budget the cost leaves the worker's lease. `unfinished_usd` is all that this worker has paid so far
    for cells that have no result. May be repeated after a lost connection: cells that are there are neither
    written nor counted twice, and of `unfinished_usd` only what is more than the run knows of.
    """
    if has_budget:
        lock_run(worker.run_id)
    ids = _insert(worker.run_id, cells) if cells else {}
    new = [cell for cell in cells if cell.key in ids]
    unfinished_usd = _newly_paid(worker, unfinished_usd) if unfinished_usd else unfinished_usd
    counters, workers = _count(worker, new, has_budget=has_budget, unfinished_usd=unfinished_usd)
    if done_shards:
        Shard.objects.filter(pk__in=done_shards).update(is_done=True)
    return Recorded(ids, counters, workers)


def lock_run(run_id: UUID) -> None:
    """Before anything that changes rows of the run's workers as well: one order, no deadlock."""
    Run.objects.select_for_update(no_key=True).filter(pk=run_id).values_list("pk").first()


def _newly_paid(worker: RunWorker, total_usd: Decimal) -> Decimal:
    """How much of `total_usd` the run has not been told of, which it is now."""
    run = Run.objects.select_for_update(no_key=True).only("unfinished_usd").get(pk=worker.run_id)
    key = str(worker.pk)
    new = total_usd - Decimal(run.unfinished_usd.get(key, 0))
    run.unfinished_usd[key] = str(total_usd)
    run.save(update_fields=["unfinished_usd"])
    return new


def _count(
    worker: RunWorker, cells: Sequence[FinishedCell], *, has_budget: bool, unfinished_usd: Decimal
) -> tuple[Counters, int]:
    states = [cell.state for cell in cells]
    cost = sum((cell.cost_usd for cell in cells if cell.cost_usd), unfinished_usd)
    changes: list[int | float | Decimal] = [
        len(cells),
        states.count(ResultState.PASSED),
        states.count(ResultState.FAILED),
        states.count(ResultState.ERROR),
        sum(cell.cached for cell in cells),
        cost,
        sum((cell.saved_usd for cell in cells if cell.saved_usd), Decimal(0)),
        sum(cell.latency_ms or 0.0 for cell in cells if not cell.cached),
        _settle(worker, cost) if has_budget else Decimal(0),
    ]
    with connection.cursor() as cursor:
        cursor.execute(_UPDATE, [*changes, _key(worker.run_id)])
        *counters, workers = cursor.fetchone()
        return Counters(*counters), workers


def _settle(worker: RunWorker, cost: Decimal) -> Decimal:
    """What was spent leaves the worker's lease; one that was given up for dead has none any more."""
    lease = RunWorker.objects.filter(pk=worker.pk, leased_usd__gt=0)
    return -cost if lease.update(leased_usd=F("leased_usd") - cost) else Decimal(0)


def _key(run_id: UUID) -> Any:
    """A run's id as this database stores it."""
    return Run._meta.pk.get_db_prep_value(run_id, connection)


def _insert(run_id: UUID, cells: Sequence[FinishedCell]) -> dict[tuple[int, int, int], int]:
    """One statement with one parameter for all rows; the ids of the new ones."""
    with connection.cursor() as cursor:
        cursor.execute(_INSERTS[connection.vendor], [_key(run_id), msgspec.json.encode(cells).decode()])
        return {(case, column, repeat): pk for pk, case, column, repeat in cursor.fetchall()}


_TYPES = {
    "case_id": "bigint",
    "column": "integer",
    "repeat": "integer",
    "state": "text",
    "output": "text",
    "score": "float8",
    "scores": "jsonb",
    "latency_ms": "float8",
    "ttft_ms": "float8",
    "input_tokens": "integer",
    "output_tokens": "integer",
    "cost_usd": "numeric",
    "saved_usd": "numeric",
    "cached": "boolean",
    "finish_reason": "text",
    "error_code": "text",
    "error": "text",
}
_NAMES = ", ".join(f'"{name}"' for name in _TYPES)
_INSERT = f"INSERT INTO {Result._meta.db_table} (run_id, {_NAMES}) "
_UNIQUE = 'ON CONFLICT (run_id, case_id, "column", repeat) DO NOTHING RETURNING id, case_id, "column", repeat'
_RECORDS = ", ".join(f'"{name}" {type_}' for name, type_ in _TYPES.items())
_EXTRACTS = ", ".join(f"json_extract(value, '$.{name}')" for name in _TYPES)
_FROM = {
    "postgresql": f"SELECT %s, {_NAMES} FROM jsonb_to_recordset(%s::jsonb) AS row({_RECORDS})",  # noqa: S608  likewise
    # WHERE true: without it SQLite reads ON CONFLICT as part of a join.
    "sqlite": f"SELECT %s, {_EXTRACTS} FROM json_each(%s) WHERE true",  # noqa: S608  likewise
}
_INSERTS = {vendor: f"{_INSERT} {source} {_UNIQUE}" for vendor, source in _FROM.items()}
_COUNTED = (
    "done", "passed", "failed", "errors", "cache_hits", "cost_usd", "saved_usd", "call_ms", "leased_usd"
)  # fmt: skip
# Raw, because the ORM takes longer to build this statement than the database to carry it out.
_UPDATE = (
    f"UPDATE {Run._meta.db_table} SET {', '.join(f'{name} = {name} + %s' for name in _COUNTED)} "  # noqa: S608  likewise
    f"WHERE id = %s RETURNING {', '.join(Counters.__struct_fields__)}, "
    f"(SELECT count(*) FROM {RunWorker._meta.db_table} WHERE run_id = {Run._meta.db_table}.id)"
)
