"""What SDK 5 expects of experiments and of their items. Fields that were not asked for are left out."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Self

import msgspec
from django.utils import timezone
from msgspec import UNSET

from evaluations.compat.langfuse.items import item_of, key_of
from evaluations.compat.langfuse.schemas import input_of
from evaluations.models import Result, ResultState, Run


class LangfuseScore(msgspec.Struct, kw_only=True, rename="camel"):
    """A verdict: a number, else yes or no, else the text that it is."""

    id: str
    project_id: str
    name: str
    data_type: str
    value: float | bool | str
    comment: str | None
    source: str = "API"
    environment: str = "default"
    timestamp: datetime
    created_at: datetime
    updated_at: datetime
    subject: dict[str, str]


def _scores_of(owner: Run | Result, run: Run, subject: dict[str, str], limit: int) -> list[LangfuseScore]:
    """Of a run or result; scores that were given here have no id of their own."""
    at = owner.created_at
    found = []
    for number, row in enumerate(owner.scores[:limit]):
        kind, value = _valued(row)
        score = LangfuseScore(
            id=row.get("id") or f"{owner.pk}-{number}",
            project_id=str(run.project_id),
            name=row["metric"] or row["scorer"],
            data_type=kind,
            value=value,
            comment=row["reason"] if kind != "TEXT" else None,
            timestamp=at,
            created_at=at,
            updated_at=at,
            subject=subject,
        )
        found.append(score)
    return found


def _valued(row: dict[str, Any]) -> tuple[str, float | bool | str]:
    if row["value"] is not None:
        return "NUMERIC", row["value"]
    if row["passed"] is not None:
        return "BOOLEAN", row["passed"]
    return "TEXT", row["reason"] or row["error"] or ""


class LangfuseExperiment(msgspec.Struct, kw_only=True, rename="camel"):
    id: str
    name: str
    description: str | None
    start_time: datetime
    end_time: datetime
    item_count: int
    dataset_id: str
    metadata: Any = UNSET
    scores: Any = UNSET

    @classmethod
    def of(cls, run: Run, since: datetime, groups: Collection[str], score_limit: int) -> Self:
        """Its start is within the time that was asked for, as Langfuse's is."""
        about = run.about or {}
        return cls(
            id=id_of(run),
            name=run.name or str(run.pk),
            description=about.get("description"),
            start_time=max(run.created_at, since),
            end_time=run.finished_at or timezone.now(),
            item_count=run.done,
            dataset_id=str(run.dataset_id),
            metadata=_object(about.get("metadata")) if "metadata" in groups else UNSET,
            scores=_scores_of_run(run, score_limit) if "scores" in groups else UNSET,
        )


def id_of(run: Run) -> str:
    """What clients call it."""
    return run.external_id or str(run.pk)


def _object(metadata: Any) -> dict[str, Any] | None:
    """The SDKs read nothing but objects here; run items may have carried any JSON."""
    return metadata if metadata is None or isinstance(metadata, dict) else {"metadata": metadata}


def _scores_of_run(run: Run, limit: int) -> list[LangfuseScore]:
    return _scores_of(run, run, {"kind": "experiment", "id": id_of(run)}, limit)


class LangfuseExperimentItem(msgspec.Struct, kw_only=True, rename="camel"):
    """A result; one that was executed here has no trace, and its own id in the place of one."""

    id: str
    trace_id: str
    start_time: datetime
    end_time: datetime
    level: str
    environment: str = "default"
    experiment_id: str
    experiment_name: str
    experiment_item_id: str
    experiment_dataset_id: Any = UNSET
    input: Any = UNSET
    output: Any = UNSET
    expected_output: Any = UNSET
    metadata: Any = UNSET
    experiment_item_metadata: Any = UNSET
    experiment_metadata: Any = UNSET
    experiment_description: Any = UNSET
    scores: Any = UNSET

    @classmethod
    def of(cls, result: Result, groups: Collection[str], score_limit: int) -> Self:
        run, case = result.run, result.case
        trace_id, observation_id = _place_of(result)
        return cls(
            id=observation_id,
            trace_id=trace_id,
            start_time=result.created_at - timedelta(milliseconds=result.latency_ms or 0),
            end_time=result.created_at,
            level="ERROR" if result.state == ResultState.ERROR else "DEFAULT",
            experiment_id=id_of(run),
            experiment_name=run.name or str(run.pk),
            experiment_item_id=key_of(case),
            experiment_dataset_id=str(run.dataset_id) if "dataset" in groups else UNSET,
            scores=_scores_of_result(result, score_limit) if "scores" in groups else UNSET,
            **_grouped(result, groups),
        )


def _place_of(result: Result) -> tuple[str, str]:
    """(trace, observation) that told of it."""
    cell = getattr(result, "external", None)
    if cell is None:
        return f"result-{result.pk}", f"result-{result.pk}"
    return cell.trace_id, cell.observation_id or cell.trace_id


def _grouped(result: Result, groups: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    case = result.case
    if "io" in groups:
        found |= {
            "input": input_of(case, item_of(case)),
            "output": result.error if result.state == ResultState.ERROR else result.output,
            "expected_output": case.expected,
        }
    if "metadata" in groups:
        found["metadata"] = None
    if "itemMetadata" in groups:
        found["experiment_item_metadata"] = case.metadata or None
    if "experimentMetadata" in groups:
        about = result.run.about or {}
        found["experiment_metadata"] = _object(about.get("metadata"))
        found["experiment_description"] = about.get("description")
    return found


def _scores_of_result(result: Result, limit: int) -> list[LangfuseScore]:
    trace_id, observation_id = _place_of(result)
    subject = {"kind": "observation", "id": observation_id, "traceId": trace_id}
    return _scores_of(result, result.run, subject, limit)
