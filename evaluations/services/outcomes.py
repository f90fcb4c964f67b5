"""What came out of cells that somebody else executes becomes results, told live as our own are."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
from django.db import transaction

from evaluations import events
from evaluations.claims import progress_of
from evaluations.models import ExternalCell, ResultState, Run, RunWorker
from evaluations.recording import FinishedCell, record_batch
from evaluations.services.external import expect_news
from evaluations.services.freezing import prompt_snapshot
from evaluations.sink import results_recorded
from prompts.models import PromptVersion

MAX_CALLS = 200  # of one cell; what more there is, is not counted
MAX_TOTAL = 2**31 - 1  # what the columns hold


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a model that a cell made."""

    model: str = ""
    prompt: str = ""
    version: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a cell; `error` is a sentence when it failed."""

    output: str
    error: str = ""
    latency_ms: float | None = None


def add_calls(cell: ExternalCell, calls: dict[str, Call]) -> None:
    """Remember calls by the id of their span, so that none is counted twice. Saves nothing."""
    for span_id, call in calls.items():
        if len(cell.calls) < MAX_CALLS:
            cell.calls[span_id] = msgspec.to_builtins(call)


def record_outcomes(run: Run, outcomes: Sequence[tuple[ExternalCell, Outcome]]) -> None:
    """Results of `outcomes`; a cell that has a result keeps it. In the transaction of `open_run`.

    `settle_scores` is to be called after the commit.
    """
    fresh = {(cell.case_id, 0, cell.repeat): (cell, it) for cell, it in outcomes if cell.result_id is None}
    if not fresh:
        return
    cells = [cell for cell, _ in fresh.values()]
    calls = {cell.pk: msgspec.convert(list(cell.calls.values()), list[Call]) for cell in cells}
    finished = [_finished(cell, it, calls[cell.pk]) for cell, it in fresh.values()]
    _name_column(run, [call for made in calls.values() for call in made])
    recorded = record_batch(RunWorker(run=run), finished, ())
    for key, (cell, _) in fresh.items():
        cell.result_id, cell.calls = recorded.ids.get(key), {}
    ExternalCell.objects.bulk_update(cells, ["result", "calls"])
    transaction.on_commit(partial(events.emit, results_recorded(run.pk, recorded, finished)))
    run.refresh_from_db()
    expect_news(run)


def tell_progress(run: Run) -> None:
    """How far the run has come, to all who follow it, after the commit."""
    run.refresh_from_db()
    transaction.on_commit(partial(events.emit, progress_of(run.pk, run)))


def _finished(cell: ExternalCell, outcome: Outcome, calls: list[Call]) -> FinishedCell:
    return FinishedCell(
        case_id=cell.case_id,
        column=0,
        repeat=cell.repeat,
        state=(ResultState.ERROR if outcome.error else ResultState.PASSED).value,
        output=outcome.output,
        latency_ms=outcome.latency_ms,
        input_tokens=_total(call.input_tokens for call in calls),
        output_tokens=_total(call.output_tokens for call in calls),
        cost_usd=_total(call.cost_usd for call in calls),
        error_code="external" if outcome.error else "",
        error=outcome.error,
    )


def _total(numbers: Iterable[Any]) -> Any:
    """Their sum; None when none is known."""
    known = [number for number in numbers if number is not None]
    return min(sum(known), MAX_TOTAL) if known else None


def _name_column(run: Run, calls: Sequence[Call]) -> None:
    """Call the run's column by the stored prompt and the model that were seen first."""
    prompt, endpoint = run.prompts[0], run.endpoints[0]
    if prompt["version"] is None and (used := next((call for call in calls if call.version), None)):
        versions = PromptVersion.objects.of_prompt(run.project, used.prompt).select_related("prompt")
        if found := versions.filter(number=used.version or 0).first():
            prompt = prompt_snapshot(found)
    if endpoint["name"] == endpoint["source"] and (model := next((c.model for c in calls if c.model), "")):
        endpoint = endpoint | {"name": model}
    if (prompt, endpoint) != (run.prompts[0], run.endpoints[0]):
        run.prompts, run.endpoints = [prompt], [endpoint]
        run.save(update_fields=["prompts", "endpoints"])
