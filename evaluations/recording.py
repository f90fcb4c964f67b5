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


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a batch has changed: the ids of the new rows by cell, and the run as it stands now."""

    ids: dict[tuple[int, int, int], int]
    run: Run


@transaction.atomic
def record_batch(worker: RunWorker, cells: Sequence[FinishedCell], done_shards: Sequence[int]) -> Recorded:
    """Write `cells`, count those that nobody wrote before, and mark shards whose last cell this was.

    May be repeated after a lost connection: what is there already is neither written nor counted twice.
    """
    ids = _insert(worker.run_id, cells) if cells else {}
    if ids:
        _count(worker, [cell for cell in cells if cell.key in ids])
    if done_shards:
        Shard.objects.filter(pk__in=done_shards).update(is_done=True)
    return Recorded(ids, Run.objects.defer("prompts", "endpoints", "judges", "scorers").get(pk=worker.run_id))


def _count(worker: RunWorker, cells: Sequence[FinishedCell]) -> None:
    states = [cell.state for cell in cells]
    cost = sum((cell.cost_usd for cell in cells if cell.cost_usd), Decimal(0))
    leased = RunWorker.objects.filter(pk=worker.pk, leased_usd__gt=0) if cost else None
    # What was spent leaves the lease; a worker that was given up for dead has none any more.
    settled = cost if leased and leased.update(leased_usd=F("leased_usd") - cost) else Decimal(0)
    Run.objects.filter(pk=worker.run_id).update(
        done=F("done") + len(cells),
        passed=F("passed") + states.count(ResultState.PASSED),
        failed=F("failed") + states.count(ResultState.FAILED),
        errors=F("errors") + states.count(ResultState.ERROR),
        cache_hits=F("cache_hits") + sum(cell.cached for cell in cells),
        cost_usd=F("cost_usd") + cost,
        leased_usd=F("leased_usd") - settled,
        saved_usd=F("saved_usd") + sum((cell.saved_usd for cell in cells if cell.saved_usd), Decimal(0)),
        call_ms=F("call_ms") + sum(cell.latency_ms or 0.0 for cell in cells if not cell.cached),
    )


def _insert(run_id: UUID, cells: Sequence[FinishedCell]) -> dict[tuple[int, int, int], int]:
    """One statement with one parameter for all rows; the ids of the new ones."""
    field = Result._meta.get_field("run")
    with connection.cursor() as cursor:
        run = field.get_db_prep_value(run_id, connection)
        cursor.execute(_STATEMENTS[connection.vendor], [run, msgspec.json.encode(cells).decode()])
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
_STATEMENTS = {vendor: f"{_INSERT} {source} {_UNIQUE}" for vendor, source in _FROM.items()}
