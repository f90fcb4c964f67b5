"""What is copied: the tables of the target, their columns, and where each value comes from.

Model endpoints are not among them: nothing that knows a secret is read here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import QuerySet

from evaluations.models import Case, Dataset, Result, Run
from evaluations.schemas import columns_of
from prompts.models import Label, Prompt, PromptVersion

# Changed whenever a table's columns change: a target of another version is refused, not altered.
SCHEMA_VERSION = "2"
_PAGE_KEYS = 2_000
_CHUNK_ROWS = 20  # outputs can have megabytes

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Column:
    """A column of the target; `path` is where the ORM finds its value."""

    name: str
    type: str
    path: str
    plain: Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows are compared scope by scope: those whose column `scope` has one value.

    Rows that are compared by their id alone are immutable. The `child` rows of a row have changed only
    if its compared columns have: they are written before it, so that an equal row vouches for them.
    """

    name: str
    scope: str = "project"
    source: Callable[[Any], QuerySet[Any]]
    columns: tuple[Column, ...]
    compared: tuple[str, ...] = ("id",)
    batch: int = 500
    child: "Table | None" = None

    @property
    def names(self) -> list[str]:
        """The columns of a row of `rows`, after the project's name."""
        return [column.name for column in self.columns]

    @property
    def definitions(self) -> list[str]:
        """The statements that create it. The primary key is one column: only so is a delete fast."""
        key, *others = (f"{column.name} {column.type}" for column in self.columns)
        columns = ", ".join([f"{key} PRIMARY KEY", "project TEXT NOT NULL", *others])
        return [
            f"CREATE TABLE IF NOT EXISTS {self.name} ({columns})",
            f"CREATE INDEX IF NOT EXISTS {self.name}_in_order ON {self.name} ({self.scope}, id)",
        ]

    def keys(self, scope: Any) -> Iterator[Row]:
        """The compared values of the scope's rows, by id; a page at a time, so none holds a transaction."""
        compared = [column for column in self.columns if column.name in self.compared]
        rows = self.source(scope).order_by("pk").values_list("pk", *(column.path for column in compared))
        page = list(rows[:_PAGE_KEYS])
        while page:
            for values in page:
                yield _plain(compared, values[1:])
            page = list(rows.filter(pk__gt=page[-1][0])[:_PAGE_KEYS])

    def rows(self, scope: Any, ids: Sequence[Any]) -> Iterator[Row]:
        """The whole rows with these ids, as far as they are still there."""
        paths = [column.path for column in self.columns]
        found = self.source(scope).filter(pk__in=ids).order_by("pk").values_list(*paths)
        for values in found.iterator(chunk_size=_CHUNK_ROWS):
            yield _plain(self.columns, values)


_WORDS = ("prompt", "version", "model")


class Results(Table):
    """Results say in words which column of their run they belong to."""

    @property
    def names(self) -> list[str]:
        return [*super().names, *_WORDS]

    @property
    def definitions(self) -> list[str]:
        table, index = super().definitions
        return [table.removesuffix(")") + ", prompt TEXT, version INTEGER, model TEXT)", index]

    def keys(self, scope: Any) -> Iterator[Row]:
        return self._in_words(scope, super().keys(scope), [n for n in self.names if n in self.compared])

    def rows(self, scope: Any, ids: Sequence[Any]) -> Iterator[Row]:
        return self._in_words(scope, super().rows(scope, ids), self.names)

    def _in_words(self, scope: Any, rows: Iterator[Row], names: list[str]) -> Iterator[Row]:
        run = Run.objects.only("prompts", "endpoints").filter(pk=scope).first()
        columns = [msgspec.structs.astuple(column) for column in columns_of(run)] if run else []
        position = names.index("column_number")
        for row in rows:
            yield row + columns[row[position]]


def _plain(columns: Sequence[Column], values: Row) -> Row:
    return tuple(
        None if value is None else column.plain(value) for column, value in zip(columns, values, strict=True)
    )


def _same(value: Any) -> Any:
    return value


def _real(value: float) -> float | None:
    """To 15 digits and 22 decimals, which the way to the target and back leaves as they are.

    Sync servers read numbers from JSON quickly rather than exactly: one in ten of those with 17 digits
    arrives one bit off, and its row would differ from ours for ever.
    """
    return round(float(f"{value:.15g}"), 22) if math.isfinite(value) else None


def _amount(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _iso(value: datetime) -> str:
    return value.isoformat(timespec="microseconds")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _key(value: int | UUID) -> int | str:
    return value if isinstance(value, int) else str(value)


def _of(type_: str, plain: Callable[[Any], Any]) -> Callable[..., list[Column]]:
    """Columns of one type, by name, or name=path where the ORM calls it differently."""

    def columns(*names: str, **paths: str) -> list[Column]:
        named = dict.fromkeys(names) | paths
        return [Column(name, type_, path or name, plain) for name, path in named.items()]

    return columns


_integers = _of("INTEGER", _key)
_keys = _of("TEXT", _key)
_texts = _of("TEXT", _same)
_reals = _of("REAL", _real)
_flags = _of("INTEGER", int)
_times = _of("TEXT", _iso)
_amounts = _of("TEXT", _amount)
_jsons = _of("TEXT", _json)

RESULTS = Results(
    name="results",
    scope="run_id",
    source=lambda run_id: Result.objects.filter(run=run_id),
    columns=(
        *_integers("id"),
        *_keys("run_id"),
        *_integers("case_id", "repeat", column_number="column"),
        *_texts("state", "output"),
        *_reals("score"),
        *_jsons("scores"),
        *_reals("latency_ms", "ttft_ms"),
        *_integers("input_tokens", "output_tokens"),
        *_amounts("cost_usd", "saved_usd"),
        *_flags("cached"),
        *_texts("finish_reason", "error_code", "error"),
        *_times("created_at"),
    ),
    # What late scores change, and news that name the column of a run that is executed elsewhere.
    compared=("id", "column_number", "state", "score", "scores", *_WORDS),
)
CASES = Table(
    name="cases",
    scope="dataset_id",
    source=lambda dataset_id: Case.objects.filter(dataset=dataset_id),
    columns=(*_integers("id", "dataset_id"), *_jsons("vars", "expected", "metadata", "scorers")),
)
_RUN_PROGRESS = (
    *_texts("state", "reason"),
    *_integers("done", "passed", "failed", "errors", "cache_hits"),
    *_amounts("cost_usd", "saved_usd", "budget_usd"),
    *_reals("call_ms"),
    *_times("started_at", "finished_at"),
    # Of a run that is executed elsewhere, which grows, and is judged, after it has ended.
    *_jsons("about", "scores"),
    *_integers("repeats", "total", "verdicts"),
)
RUNS = Table(
    name="runs",
    source=lambda project: Run.objects.filter(project__name=project),
    columns=(
        *_keys("id"),
        *_integers("dataset_id"),
        *_texts("name", "external_id"),
        *_jsons("prompts", "endpoints", "judges", "scorers"),
        *_reals("threshold"),
        *_integers("concurrency", "seed"),
        *_flags("use_cache"),
        *_texts("created_by"),
        *_times("created_at"),
        *_RUN_PROGRESS,
    ),
    compared=("id", *(column.name for column in _RUN_PROGRESS)),
    batch=20,
    child=RESULTS,
)
DATASETS = Table(
    name="datasets",
    source=lambda project: Dataset.objects.filter(project__name=project),
    columns=(
        *_integers("id"),
        *_texts("name", "description"),
        *_integers("case_count"),
        *_times("created_at"),
    ),
    compared=("id", "name", "description", "case_count"),
    batch=20,
    child=CASES,
)
PROMPTS = Table(
    name="prompts",
    source=lambda project: Prompt.objects.filter(project__name=project),
    columns=(
        *_integers("id"),
        *_texts("name", "type"),
        *_jsons("tags"),
        *_texts("created_by"),
        *_times("created_at", "updated_at"),
    ),
    compared=("id", "name", "tags", "updated_at"),
)
VERSIONS = Table(
    name="prompt_versions",
    source=lambda project: PromptVersion.objects.filter(prompt__project__name=project),
    columns=(
        *_integers("id", "prompt_id", version="number"),
        *_jsons("template", "config", "variables"),
        *_texts("message", "created_by"),
        *_times("created_at"),
    ),
)
LABELS = Table(
    name="labels",
    source=lambda project: Label.objects.filter(prompt__project__name=project),
    columns=(*_integers("id", "prompt_id", version="version__number"), *_texts("name")),
    compared=("id", "version", "name"),
)
# In the order in which they are synced.
TABLES = (PROMPTS, VERSIONS, LABELS, DATASETS, RUNS)
ALL_TABLES = (*TABLES, CASES, RESULTS)
