"""What the REST routes of data sets and runs take and give."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Protocol, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from autoforge.pagination import PageQuery
from evaluations.models import Case, Dataset, Result, Run
from prompts.schemas import VersionNumber


def usd(amount: Decimal | None) -> float | None:
    """Money as a JSON number; inside it stays Decimal."""
    return None if amount is None else float(amount)


class NewDataset(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str = ""


class NewCase(msgspec.Struct, forbid_unknown_fields=True):
    """One input; `expected` is what a scorer may compare with, `scorers` come on top of the run's own."""

    vars: dict[str, Any]
    expected: Any = None
    metadata: dict[str, Any] = {}
    scorers: list[dict[str, Any]] = []


class DatasetOut(msgspec.Struct):
    name: str
    description: str
    cases: int
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        return cls(dataset.name, dataset.description, dataset.case_count, dataset.created_at)


class CaseOut(msgspec.Struct):
    id: int
    vars: dict[str, Any]
    expected: Any
    metadata: dict[str, Any]
    scorers: list[dict[str, Any]]

    @classmethod
    def of(cls, case: Case) -> Self:
        return cls(case.pk, case.vars, case.expected, case.metadata, case.scorers)


class Imported(msgspec.Struct):
    """How many cases an import added."""

    imported: int


class PromptRef(msgspec.Struct, forbid_unknown_fields=True):
    """A version of a prompt: by label, by number, or `production`, else `latest`."""

    name: str
    label: str | None = None
    version: VersionNumber | None = None


class NewRun(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An experiment to start. `threshold`: a case passes when its weighted mean score reaches it."""

    prompts: list[PromptRef]
    models: list[str]
    dataset: str
    scorers: list[dict[str, Any]] = []
    name: str = ""
    threshold: float | None = None
    concurrency: int = 10
    repeats: int = 1
    budget_usd: Decimal | None = None
    use_cache: bool = True
    seed: int | None = None


class Resume(msgspec.Struct, forbid_unknown_fields=True):
    """`budget_usd` raises the limit of a run that reached it."""

    budget_usd: Decimal | None = None


class ColumnOut(msgspec.Struct):
    """One prompt version on one model; without a version no stored prompt is known of a run elsewhere."""

    prompt: str
    version: int | None
    model: str


class Named(Protocol):
    """A column, or one side of a comparison."""

    prompt: str
    version: int | None


def versioned(column: Named) -> str:
    """The column as people read it: greet v2."""
    return column.prompt if column.version is None else f"{column.prompt} v{column.version}"


class RunOut(msgspec.Struct, kw_only=True):
    """A run and how far it has come; `reason` says why it failed, `scores` judge it as a whole."""

    id: UUID
    name: str
    state: str
    dataset: str
    columns: list[ColumnOut]
    concurrency: int
    repeats: int
    budget_usd: float | None
    total: int
    done: int
    passed: int
    failed: int
    errors: int
    cost_usd: float
    saved_usd: float
    cache_hits: int
    parallel_efficiency: float | None
    scores: list[dict[str, Any]]
    reason: str
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> Self:
        from evaluations.reports import efficiency_of

        return cls(
            id=run.pk,
            name=run.name,
            state=run.state,
            dataset=run.dataset.name,
            columns=columns_of(run),
            concurrency=run.concurrency,
            repeats=run.repeats,
            budget_usd=usd(run.budget_usd),
            total=run.total,
            done=run.done,
            passed=run.passed,
            failed=run.failed,
            errors=run.errors,
            cost_usd=float(run.cost_usd),
            saved_usd=float(run.saved_usd),
            cache_hits=run.cache_hits,
            parallel_efficiency=efficiency_of(run),
            scores=run.scores,
            reason=run.reason,
            created_by=run.created_by,
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
        )


def columns_of(run: Run) -> list[ColumnOut]:
    """The run's columns, in the order of their numbers."""
    return [
        ColumnOut(prompt["name"], prompt["version"], endpoint["name"])
        for prompt in run.prompts
        for endpoint in run.endpoints
    ]


class Tokens(msgspec.Struct):
    input: int | None
    output: int | None


class ResultOut(msgspec.Struct, kw_only=True):
    """One executed cell; `case` is the case's id, `error` a sentence when the state is `error`."""

    id: int
    case: int
    prompt: str
    version: int | None
    model: str
    column: int
    repeat: int
    state: str
    output: str
    score: float | None
    scores: list[dict[str, Any]]
    latency_ms: float | None
    ttft_ms: float | None
    tokens: Tokens
    cost_usd: float | None
    cached: bool
    finish_reason: str
    error: str | None
    error_code: str | None

    @classmethod
    def of(cls, result: Result, column: ColumnOut) -> Self:
        return cls(
            id=result.pk,
            case=result.case_id,
            prompt=column.prompt,
            version=column.version,
            model=column.model,
            column=result.column,
            repeat=result.repeat,
            state=result.state,
            output=result.output,
            score=result.score,
            scores=result.scores,
            latency_ms=result.latency_ms,
            ttft_ms=result.ttft_ms,
            tokens=Tokens(result.input_tokens, result.output_tokens),
            cost_usd=usd(result.cost_usd),
            cached=result.cached,
            finish_reason=result.finish_reason,
            error=result.error or None,
            error_code=result.error_code or None,
        )


class RunsQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """`?state=&dataset=`, and the page."""

    state: str | None = None
    dataset: str | None = None


class ResultsQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    """Filters of results; `sort` is id, score or latency, with `-` descending; unknown values come last."""

    state: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    min_latency_ms: float | None = None
    max_latency_ms: float | None = None
    cached: bool | None = None
    case: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    column: int | None = None
    prompt: str | None = None
    version: int | None = None
    model: str | None = None
    sort: str = "id"
