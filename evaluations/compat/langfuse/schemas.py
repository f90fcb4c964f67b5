"""What Langfuse's clients send and expect of data sets, items and runs."""

from datetime import datetime
from typing import Any, Literal, Self

import msgspec

from evaluations.models import Case, Dataset, ExternalCase, Run
from prompts.compat.langfuse.surface import PageQuery

NATIVE_PREFIX = "case-"


class NewDataset(msgspec.Struct, kw_only=True, rename="camel"):
    name: str
    description: str | None = None
    metadata: Any = None
    input_schema: Any = None
    expected_output_schema: Any = None


class LangfuseDataset(msgspec.Struct, kw_only=True, rename="camel"):
    id: str
    name: str
    description: str | None
    metadata: Any
    project_id: str
    created_at: datetime
    updated_at: datetime
    input_schema: None = None
    expected_output_schema: None = None

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        return cls(
            id=str(dataset.pk),
            name=dataset.name,
            description=dataset.description or None,
            metadata=dataset.metadata,
            project_id=str(dataset.project_id),
            created_at=dataset.created_at,
            updated_at=dataset.created_at,
        )


class NewItem(msgspec.Struct, kw_only=True, rename="camel"):
    """Of an item that exists, what is null stays as it is."""

    dataset_name: str
    id: str | None = None
    input: Any = None
    expected_output: Any = None
    metadata: Any = None
    source_trace_id: str | None = None
    source_observation_id: str | None = None
    status: Literal["ACTIVE", "ARCHIVED"] | None = None


class LangfuseItem(msgspec.Struct, kw_only=True, rename="camel"):
    """`id` of a case that was not made through this surface: case-<id>."""

    id: str
    status: str
    input: Any
    expected_output: Any
    metadata: Any
    source_trace_id: str | None
    source_observation_id: str | None
    dataset_id: str
    dataset_name: str
    created_at: datetime
    updated_at: datetime
    media_references: list[Any] = []

    @classmethod
    def of(cls, case: Case, external: ExternalCase | None, dataset: Dataset) -> Self:
        return cls(
            id=external.key if external else f"{NATIVE_PREFIX}{case.pk}",
            status="ACTIVE" if case.superseded_by is None else "ARCHIVED",
            input=input_of(case, external),
            expected_output=case.expected,
            metadata=case.metadata or None,
            source_trace_id=(external and external.source_trace_id) or None,
            source_observation_id=(external and external.source_observation_id) or None,
            dataset_id=str(dataset.pk),
            dataset_name=dataset.name,
            created_at=external.created_at if external else dataset.created_at,
            updated_at=external.updated_at if external else dataset.created_at,
        )


def input_of(case: Case, external: ExternalCase | None) -> Any:
    """As it came: some are no object, but the variable `input`."""
    is_plain = external is not None and external.is_plain
    return case.vars.get("input") if is_plain else case.vars


class ItemsQuery(PageQuery, kw_only=True, rename="camel"):
    dataset_name: str | None = None
    version: datetime | None = None


class NewRunItem(msgspec.Struct, kw_only=True, rename="camel"):
    """A trace of an item; it opens the run of that name."""

    run_name: str
    dataset_item_id: str
    run_description: str | None = None
    metadata: Any = None
    trace_id: str | None = None
    observation_id: str | None = None


class RunItem(msgspec.Struct, kw_only=True, rename="camel"):
    id: str
    dataset_run_id: str
    dataset_run_name: str
    dataset_item_id: str
    trace_id: str
    observation_id: str | None
    created_at: datetime
    updated_at: datetime


class LangfuseRun(msgspec.Struct, kw_only=True, rename="camel"):
    id: str
    name: str
    description: str | None = None
    metadata: Any = None
    dataset_id: str
    dataset_name: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, run: Run, **more: Any) -> Self:
        return cls(
            id=run.external_id or str(run.pk),
            name=run.name or str(run.pk),
            dataset_id=str(run.dataset_id),
            dataset_name=run.dataset.name,
            **(run.about or {}),
            created_at=run.created_at,
            updated_at=run.finished_at or run.started_at or run.created_at,
            **more,
        )


class RunWithItems(LangfuseRun, kw_only=True, rename="camel"):
    dataset_run_items: list[RunItem]
