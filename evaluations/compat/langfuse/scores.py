"""`/api/public/ingestion` and `/scores`: verdicts of the SDKs' evaluators, and of people."""

import uuid
from typing import Any, Literal

import msgspec
from django.conf import settings
from django.http import HttpResponse

from autoforge.errors import InvalidInput
from evaluations import services
from evaluations.services.verdicts import MAX_PENDING, Given, GivenScore
from prompts.compat.langfuse.surface import Exchange, json_response

MAX_BATCH = 1_000
PASSES_AT = 0.5  # a number in 0..1 is a verdict, too
_MAX_CHARS = 10_000
_NO_ROOM = f"{MAX_PENDING:,} scores wait for their results already: score only traces of experiments here."


class NewScore(msgspec.Struct, kw_only=True, rename="camel"):
    """What a client says of a trace, an observation or a run; its other fields are ignored."""

    name: str
    value: float | bool | str
    id: str | None = None
    trace_id: str | None = None
    observation_id: str | None = None
    dataset_run_id: str | None = None
    session_id: str | None = None
    comment: str | None = None
    data_type: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"] | None = None


class _Event(msgspec.Struct):
    id: str
    type: str
    body: Any = None


class _Batch(msgspec.Struct):
    batch: list[_Event]


def ingest(exchange: Exchange) -> HttpResponse:
    """A batch of events: scores are kept, the others are accepted and dropped. 207, each with its status."""
    batch = exchange.body(_Batch, limit_bytes=settings.MAX_INGESTION_BYTES).batch
    _check_size(batch)
    given: list[Given] = []
    score_ids: list[str] = []  # by the place of their event
    wrong: dict[int, str] = {}
    for place, event in enumerate(batch):
        taken: list[Given] = []
        try:
            taken = _given(event.body) if event.type == "score-create" else []
        except InvalidInput as error:
            wrong[place] = error.detail
        given += taken
        score_ids.append(taken[0].score.id if taken else "")
    refused = services.give_scores(exchange.project, given)
    wrong |= {place: _NO_ROOM for place, id in enumerate(score_ids) if id in refused}
    errors = [
        {"id": batch[place].id, "status": 400, "message": why, "error": why} for place, why in wrong.items()
    ]
    successes = [{"id": event.id, "status": 201} for place, event in enumerate(batch) if place not in wrong]
    return json_response({"successes": successes, "errors": errors}, 207)


def create_scores(exchange: Exchange) -> HttpResponse:
    """One score, or a list: 202 when all were taken, else 207 with what is wrong with the others.

    Raises InvalidInput for the one score.
    """
    body: Any = exchange.body(object)
    if not isinstance(body, list):
        given = _given(body)
        if services.give_scores(exchange.project, given):
            raise InvalidInput(_NO_ROOM)
        return json_response({"id": given[0].score.id if given else str(uuid.uuid4())})
    _check_size(body)
    taken: list[Given] = []
    errors: list[dict[str, str]] = []
    for item in body:
        try:
            taken += _given(item)
        except InvalidInput as error:
            errors.append({"message": error.detail})
    refused = services.give_scores(exchange.project, taken)
    errors += [{"message": _NO_ROOM} for it in taken if it.score.id in refused]
    if not errors:
        return json_response({"message": "Accepted"}, 202)
    counts = {"accepted": len(body) - len(errors), "rejected": len(errors)}
    return json_response(counts | {"errors": errors}, 207)


def _check_size(batch: list[Any]) -> None:
    if len(batch) > MAX_BATCH:
        raise InvalidInput(f"A batch has at most {MAX_BATCH} entries, not {len(batch)}.")


def _given(body: Any) -> list[Given]:
    """One score, or none where it judges nothing that is kept here. Raises InvalidInput."""
    try:
        new = msgspec.convert(body, NewScore)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{error}") from None
    if max(len(text or "") for text in (new.id, new.name, new.dataset_run_id)) > 200:
        raise InvalidInput("id, name and datasetRunId have at most 200 characters.")
    if max(len(text or "") for text in (new.trace_id, new.observation_id)) > 64:
        raise InvalidInput("traceId and observationId have at most 64 characters.")
    subject = {
        "run": new.dataset_run_id or "",
        "trace_id": "" if new.dataset_run_id else new.trace_id or "",
        "observation_id": new.observation_id or "",
    }
    if not subject["run"] and not subject["trace_id"]:
        return []
    return [Given(score=_score(new), **subject)]


def _score(new: NewScore) -> GivenScore:
    value, passed = _verdict(new)
    words = [new.value if isinstance(new.value, str) else "", new.comment or ""]
    return GivenScore(
        id=new.id or str(uuid.uuid4()),
        scorer=new.name,
        metric=None,
        value=value,
        passed=passed,
        reason=": ".join(word for word in words if word)[:_MAX_CHARS],
        error=None,
        weight=1.0,
    )


def _verdict(new: NewScore) -> tuple[float | None, bool | None]:
    """(value, passed): a category is neither, and a number outside of 0..1 is no verdict."""
    if isinstance(new.value, str):
        return None, None
    value = float(new.value)
    if new.data_type == "BOOLEAN" or isinstance(new.value, bool):
        return float(value == 1), value == 1
    return value, value >= PASSES_AT if 0 <= value <= 1 else None
