"""What a run consists of while it is executed: columns, cases, and the request of each cell."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from evaluations.models import Result, Run, Shard
from evaluations.scorers.base import ScorerSpec, needs_judge, parse_scorers, render_specs
from prompts.endpoint_rules import own_params
from prompts.llm.providers.base import Endpoint, Request, merge_params
from prompts.models import ModelEndpoint
from prompts.rendering import render, render_value


@dataclass(frozen=True, slots=True)
class Column:
    """A prompt on an endpoint, with everything that is the same for each of its cells."""

    template: Any
    type: Literal["text", "chat"]
    prompt_index: int
    endpoint: Endpoint
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a frozen endpoint cannot be called any more: what its cells have for an error."""

    code: str
    sentence: str


class Plan:
    """A run in the form that its cells are made from. Reads the database once, when it is made."""

    def __init__(self, run: Run) -> None:
        present = _present_endpoints(run)
        endpoints = [_thawed(snapshot, present) for snapshot in run.endpoints]
        judges = [_thawed(snapshot, present) for snapshot in run.judges]
        seeded = {} if run.seed is None else {"seed": run.seed}
        self.run = run
        self.columns = [
            Column(
                template=prompt["template"],
                type=prompt["type"],
                prompt_index=index,
                endpoint=endpoint,
                params=merge_params(endpoint.params, own_params(prompt["config"]), seeded),
            )
            for index, prompt in enumerate(run.prompts)
            for endpoint in endpoints
        ]
        # The scorers of a single case may name an endpoint that the run did not freeze.
        self.judges = present | {judge.name: judge for judge in judges}
        self.obstacles = {
            endpoint.name: obstacle
            for endpoint in (*endpoints, *judges)
            if (obstacle := _obstacle(endpoint, present.get(endpoint.name)))
        }
        self.specs = parse_scorers(run.scorers)
        self.cache: Literal["use", "no-cache"] = "use" if run.use_cache else "no-cache"


def _present_endpoints(run: Run) -> dict[str, Endpoint]:
    rows = ModelEndpoint.objects.filter(project_id=run.project_id)
    return {row.name: row.as_endpoint() for row in rows}


def _thawed(snapshot: dict[str, Any], present: dict[str, Endpoint]) -> Endpoint:
    """The frozen endpoint with the secret of today: secrets are not frozen, they may be rotated.

    A secret never follows to another address: an endpoint that has moved meanwhile keeps it.
    """
    frozen = msgspec.convert(snapshot, Endpoint)
    now = present.get(frozen.name)
    if now is None or _address(now) != _address(frozen):
        return frozen
    return msgspec.structs.replace(frozen, api_key=now.api_key)


def _obstacle(frozen: Endpoint, now: Endpoint | None) -> Obstacle | None:
    if now is None:
        return Obstacle("endpoint_deleted", f"The model endpoint {frozen.name} no longer exists.")
    if _address(now) != _address(frozen):
        return Obstacle(
            "endpoint_moved",
            f"The model endpoint {frozen.name} has another provider or base_url than when this run was "
            "started: start a new run.",
        )
    return None


def _address(endpoint: Endpoint) -> tuple[str, str | None]:
    """Where a secret may be sent."""
    return endpoint.provider, endpoint.base_url


@dataclass(slots=True)
class ShardWork:
    """A claimed shard, and how many of its cells are not finished."""

    id: int
    cells_left: int = 0

    def finish_cell(self) -> int | None:
        """The shard's id if this was its last cell."""
        self.cells_left -= 1
        return None if self.cells_left else self.id


@dataclass(slots=True)
class CaseWork:
    """A case, with what its cells share: messages by prompt, and rendered scorers."""

    plan: Plan
    id: int
    vars: dict[str, Any]
    expected: Any
    own_scorers: list[dict[str, Any]]
    _messages: dict[int, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    _specs: list[ScorerSpec] | None = None
    _needs_judge: bool = False

    def messages(self, column: Column) -> tuple[dict[str, Any], ...]:
        """What the column's prompt makes of this case. Raises RenderError."""
        known = self._messages.get(column.prompt_index)
        if known is None:
            known = tuple(render(column.template, column.type, self.vars))
            self._messages[column.prompt_index] = known
        return known

    def specs(self) -> list[ScorerSpec]:
        """The run's scorers and then the case's own, rendered. Raises RenderError or ScorerError."""
        if self._specs is None:
            specs = self.plan.specs + parse_scorers(self.own_scorers)
            known = {"expected": self.expected} | self.vars
            self._specs = render_specs(specs, lambda text: render_value(text, known))
            self._needs_judge = needs_judge(specs)
        return self._specs

    @property
    def needs_judge(self) -> bool:
        return self._needs_judge


@dataclass(frozen=True, slots=True)
class Cell:
    """One coordinate of the run."""

    work: CaseWork
    shard: ShardWork
    column_index: int
    repeat: int

    @property
    def column(self) -> Column:
        return self.work.plan.columns[self.column_index]

    def request(self) -> Request:
        """What the model is asked. Raises RenderError."""
        column, plan = self.column, self.work.plan
        is_simulated = column.endpoint.provider == "simulated"
        return Request(
            endpoint=column.endpoint,
            messages=self.work.messages(column),
            params=column.params,
            repeat=self.repeat,
            expected=_as_text(self.work.expected) if is_simulated else None,
            cache=plan.cache,
        )


def _as_text(expected: Any) -> str | None:
    if expected is None or isinstance(expected, str):
        return expected
    return msgspec.json.encode(expected).decode()


def load_shard(plan: Plan, shard: Shard) -> list[Cell]:
    """The shard's cells that have no result yet, in order. Two queries; memory: the cases of one shard."""
    run, span = plan.run, (shard.first_case_id, shard.last_case_id)
    recorded = Result.objects.filter(run=run, case__gte=span[0], case__lte=span[1])
    done = set(recorded.values_list("case_id", "column", "repeat"))
    here = ShardWork(shard.pk)
    cells = [
        Cell(work, here, column, repeat)
        for work in _case_works(plan, span)
        for column in range(run.columns)
        for repeat in range(run.repeats)
        if (work.id, column, repeat) not in done
    ]
    here.cells_left = len(cells)
    return cells


def _case_works(plan: Plan, span: tuple[int, int]) -> Iterator[CaseWork]:
    cases = plan.run.frozen_cases().filter(pk__range=span)
    for pk, values, expected, scorers in cases.values_list("pk", "vars", "expected", "scorers"):
        yield CaseWork(plan, pk, values, expected, scorers)
