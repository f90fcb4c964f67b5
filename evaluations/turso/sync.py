"""Makes the target equal to the project: finds what differs, writes and removes exactly that."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.db import reset_queries
from django.db.migrations.recorder import MigrationRecorder

from autoforge.models import Project
from evaluations.turso.tables import TABLES, Row, Table
from evaluations.turso.target import Target, open_target


@dataclass
class Synced:
    """How many rows were written and removed, by table."""

    written: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that one side has, or both have with different values."""

    key: Any
    is_here: bool
    is_there: bool


def sync_project(project: Project, *, on_progress: Callable[[Synced], None] = lambda _: None) -> Synced:
    """Bring the target up to date with the project. Raises TursoError.

    Exact under concurrent writes, because nothing is guessed from time or highest ids: every id is
    compared, but for the results of runs and the cases of data sets whose own rows are equal. What changes
    while they are read is found by the next sync.
    """
    synced = Synced()
    with open_target(project, _installation()) as target:
        for table in TABLES:
            _sync(table, project.name, target, synced, on_progress)
    return synced


def differences(here: Iterable[Row], there: Iterable[Row]) -> Iterator[Difference]:
    """What differs between two sides, each sorted by a row's first value; holds one row of each."""
    others = iter(there)
    other = next(others, None)
    for row in here:
        while other is not None and other[0] < row[0]:
            yield Difference(other[0], is_here=False, is_there=True)
            other = next(others, None)
        is_there = other is not None and other[0] == row[0]
        if not is_there or row != other:
            yield Difference(row[0], is_here=True, is_there=is_there)
        if is_there:
            other = next(others, None)
    while other is not None:
        yield Difference(other[0], is_here=False, is_there=True)
        other = next(others, None)


def _sync(
    table: Table, scope: Any, target: Target, synced: Synced, on_progress: Callable[[Synced], None]
) -> None:
    found = differences(table.keys(scope), target.keys(table, scope))
    while batch := list(islice(found, table.batch)):
        rows: Iterable[Row] = table.rows(scope, [change.key for change in batch if change.is_here])
        if table.child is not None:
            # Read before its children: what it vouches for may be less than they are, never more.
            rows = list(rows)
            for change in batch:
                _sync(table.child, change.key, target, synced, on_progress)
            target.flush()
        _write(table, batch, rows, target, synced)
        on_progress(synced)
        reset_queries()  # with DEBUG on, Django keeps the text of every statement


def _write(
    table: Table, batch: list[Difference], rows: Iterable[Row], target: Target, synced: Synced
) -> None:
    for change in batch:
        if change.is_there:
            target.remove(table, change.key)
            synced.removed[table.name] += not change.is_here
    for row in rows:
        target.insert(table, row)
        synced.written[table.name] += 1


def _installation() -> str:
    """What tells one AutoForge's database from another's, whatever machine it is moved to."""
    first = MigrationRecorder.Migration.objects.order_by("id").values_list("applied", flat=True)[0]
    return str(first.isoformat(timespec="microseconds"))
