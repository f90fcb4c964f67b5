"""Executes one cell: render, call, score. A failure of the vendor, the template or the judge is a result."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from evaluations.budget import Lease, UnpaidError
from evaluations.cells import Cell, Column, Plan
from evaluations.models import ResultState
from evaluations.recording import FinishedCell
from evaluations.scorers.base import Assessment, Output, ScorerError, assess, assess_async, is_slow
from evaluations.slots import Turn
from evaluations.tokens import TokenStream
from prompts.llm import client
from prompts.llm.pricing import bounded, estimate_usd, has_price, no_price_sentence, prepare
from prompts.llm.providers.base import Completion, ProviderError, Request
from prompts.rendering import RenderError

_SMALLEST_USD = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class CellExecutor:
    """Turns cells of one run into finished cells."""

    plan: Plan
    lease: Lease
    tokens: TokenStream

    async def execute(self, cell: Cell, turn: Turn) -> FinishedCell:
        """The cell's outcome. Raises UnpaidError when the budget does not suffice for all its calls."""
        if obstacle := self.plan.obstacles.get(cell.column.endpoint.name):
            return _errored(cell, obstacle.code, obstacle.sentence)
        try:
            request, _ = cell.request(), cell.work.specs()
        except (RenderError, ScorerError) as error:
            return _errored(cell, "render", str(error))
        hear = self.tokens.listener(cell.work.id, cell.column_index, cell.repeat)
        try:
            completion = await self._call(request, turn, on_delta=hear)
        except ProviderError as error:
            return _errored(cell, error.code, error.message)
        return await self._assessed(cell, completion, turn)

    async def _call(self, request: Request, turn: Turn, **options: Any) -> Completion:
        """Reserve, call, settle. Raises ProviderError, UnpaidError."""
        if not self.lease.is_limited:
            return await client.complete(request, turn=turn, **options)
        request, endpoint = bounded(request), request.endpoint
        await prepare(endpoint)
        if not has_price(endpoint):  # a judge that only a single case names
            raise ProviderError("invalid_request", no_price_sentence(endpoint.name))
        estimate = estimate_usd(endpoint, request.messages, request.params)
        await self.lease.reserve(estimate)
        cost = None
        try:
            completion = _with_cost(await client.complete(request, turn=turn, **options), estimate)
            cost = completion.cost_usd
        finally:
            self.lease.settle(estimate, cost)
        return completion

    async def _assessed(self, cell: Cell, completion: Completion, turn: Turn) -> FinishedCell:
        output = Output(
            text=clean(completion.text),
            latency_ms=completion.latency_ms,
            cost_usd=completion.cost_usd,
            cached=completion.cached,
            finish_reason=completion.finish_reason,
        )
        specs, threshold = cell.work.specs(), self.plan.run.threshold
        if not cell.work.needs_judge and not is_slow(specs, output):
            return _finished(cell, completion, output, assess(specs, output, threshold=threshold))
        judging = _Judging(self, cell.column, cell.repeat, turn)
        assessment = await assess_async(specs, output, judge=judging.ask, threshold=threshold)
        if judging.unpaid:
            # Scoring makes an error of what a judge raises; this is none of the cell's.
            judging.unpaid.cost_usd = (completion.cost_usd or Decimal(0)) + judging.cost_usd
            raise judging.unpaid
        return _finished(cell, completion, output, assessment, judging.cost_usd)


@dataclass(slots=True)
class _Judging:
    """Asks judges on behalf of one cell, and adds up what they cost."""

    executor: CellExecutor
    column: Column
    repeat: int
    turn: Turn
    cost_usd: Decimal = field(default=Decimal(0))
    unpaid: UnpaidError | None = None

    async def ask(self, name: str | None, messages: list[dict[str, Any]]) -> str:
        """The judge's text. Raises ProviderError, ScorerError, UnpaidError."""
        plan = self.executor.plan
        endpoint = self.column.endpoint if name is None else plan.judges.get(name)
        if endpoint is None:
            raise ScorerError("provider", f"there is no model endpoint {name!r} to judge with.")
        if obstacle := plan.obstacles.get(endpoint.name):
            raise ScorerError("provider", obstacle.sentence)
        request = Request(
            endpoint=endpoint,
            messages=tuple(messages),
            params=endpoint.params,
            repeat=self.repeat,
            cache=plan.cache,
        )
        try:
            completion = await self.executor._call(request, self.turn)
        except UnpaidError as error:
            self.unpaid = error
            raise
        self.cost_usd += completion.cost_usd or Decimal(0)
        return clean(completion.text)


def _finished(
    cell: Cell,
    completion: Completion,
    output: Output,
    assessment: Assessment,
    judges_usd: Decimal = Decimal(0),
) -> FinishedCell:
    state = ResultState.PASSED if assessment.passed else ResultState.FAILED
    cost = completion.cost_usd
    return FinishedCell(
        case_id=cell.work.id,
        column=cell.column_index,
        repeat=cell.repeat,
        state=ResultState.ERROR.value if assessment.error is not None else state.value,
        output=output.text,
        score=assessment.score,
        scores=list(assessment.scores),
        latency_ms=completion.latency_ms,
        ttft_ms=completion.ttft_ms,
        input_tokens=completion.usage.input_tokens,
        output_tokens=completion.usage.output_tokens,
        cost_usd=_rounded((cost or Decimal(0)) + judges_usd if judges_usd else cost),
        saved_usd=_rounded(completion.saved_usd),
        cached=completion.cached,
        finish_reason=clean(completion.finish_reason or "")[:40],
        error_code="scorer" if assessment.error is not None else "",
        error=clean(assessment.error or ""),
    )


def _with_cost(completion: Completion, most_usd: Decimal) -> Completion:
    """Where the vendor did not count tokens, the most that the call could cost stands for its cost."""
    if completion.cost_usd is not None:
        return completion
    return msgspec.structs.replace(completion, cost_usd=most_usd)


def _rounded(amount: Decimal | None) -> Decimal | None:
    """To what the database keeps, so that a run's cost is exactly the sum of its results'."""
    return None if amount is None else amount.quantize(_SMALLEST_USD)


def _errored(cell: Cell, code: str, sentence: str) -> FinishedCell:
    return FinishedCell(
        case_id=cell.work.id,
        column=cell.column_index,
        repeat=cell.repeat,
        state=ResultState.ERROR.value,
        error_code=code[:40],
        error=clean(sentence),
    )


def clean(text: str) -> str:
    """`text` as databases can hold it: NUL and lone surrogates become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
