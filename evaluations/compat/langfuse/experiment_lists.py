"""`/api/public/experiments` and `/experiment-items`: runs and results as SDK 5 reads them."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from django.db.models import Model, Q, QuerySet
from django.http import HttpResponse

from autoforge import pagination
from autoforge.errors import InvalidInput
from autoforge.parsers import holds_nul
from evaluations.compat.langfuse.experiment_shapes import LangfuseExperiment, LangfuseExperimentItem
from evaluations.compat.langfuse.identity import called, own_ids
from evaluations.compat.langfuse.items import number_of
from evaluations.models import Result, Run
from prompts.compat.langfuse.surface import MAX_PAGE, Exchange, in_utc, json_response

M = TypeVar("M", bound=Model)
MAX_SCORES = 50
_MAX_WANTED = 1_000
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
Matches = Callable[[Sequence[str]], Q]


class _Condition(msgspec.Struct):
    """One of `filter`."""

    column: str
    operator: str
    value: str | list[str]


class _ListQuery(msgspec.Struct, kw_only=True, rename="camel"):
    from_start_time: datetime
    to_start_time: datetime | None = None
    fields: str | None = None
    limit: int = 50
    score_limit: int = MAX_SCORES
    cursor: str | None = None
    filter: str | None = None
    dataset_id: str | None = None

    def __post_init__(self) -> None:
        self.from_start_time = in_utc(self.from_start_time)
        self.to_start_time = self.to_start_time and in_utc(self.to_start_time)

    def groups(self, known: Sequence[str], default: str) -> set[str]:
        """The groups of fields that are wanted. Raises InvalidInput."""
        wanted = {name.strip() for name in (self.fields or default).split(",")} - {""}
        if unknown := sorted(wanted - set(known)):
            raise InvalidInput(f"fields has no group {unknown[0]!r}: choose among {', '.join(known)}.")
        return wanted

    def conditions(self, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
        """(column, the values it may have) of the parameters of those names and of `filter`."""
        given = msgspec.to_builtins(self)
        found = [(column, given[column].split(",")) for column in columns if given[column] is not None]
        return found + [_read(condition, columns) for condition in self._filter()]

    def _filter(self) -> list[_Condition]:
        text = self.filter or "[]"
        if holds_nul(text.encode(errors="replace")):
            raise InvalidInput("filter holds the character U+0000, which nothing is called.")
        try:
            return msgspec.json.decode(text, type=list[_Condition])
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidInput(f"filter is no list of conditions: {error}.") from None


class ExperimentsQuery(_ListQuery, kw_only=True, rename="camel"):
    id: str | None = None
    name: str | None = None


class ExperimentItemsQuery(_ListQuery, kw_only=True, rename="camel"):
    experiment_id: str | None = None
    experiment_name: str | None = None
    experiment_item_id: str | None = None


def _read(condition: _Condition, columns: Sequence[str]) -> tuple[str, list[str]]:
    if condition.column not in columns:
        raise InvalidInput(f"filter has no column {condition.column!r}: choose among {', '.join(columns)}.")
    if condition.operator not in ("=", "any of"):
        raise InvalidInput(f"filter knows the operators '=' and 'any of', not {condition.operator!r}.")
    values = [condition.value] if isinstance(condition.value, str) else condition.value
    return condition.column, values


def list_experiments(exchange: Exchange) -> HttpResponse:
    """All runs of the project that were at work in that time, newest first, those we execute among them."""
    query = exchange.query(ExperimentsQuery)
    groups = query.groups(("core", "metadata", "scores"), "core")
    at_work = Q(finished_at=None) | Q(finished_at__gte=query.from_start_time)
    runs = _slim(Run.objects.filter(at_work, project=exchange.project))
    if query.to_start_time is not None:
        runs = runs.filter(created_at__lt=query.to_start_time)
    for matches in _matching(query, {"id": _by_id, "name": called, "datasetId": _by_dataset}):
        runs = runs.filter(matches)
    return _page(
        runs,
        query,
        ("-created_at", "id"),
        lambda run: LangfuseExperiment.of(run, query.from_start_time, groups, query.score_limit),
    )


def list_experiment_items(exchange: Exchange) -> HttpResponse:
    """Results that came in that time, newest first."""
    query = exchange.query(ExperimentItemsQuery)
    known = ("core", "dataset", "io", "metadata", "itemMetadata", "experimentMetadata", "scores")
    groups = query.groups(known, "core,dataset")
    runs = Run.objects.filter(project=exchange.project)
    results = Result.objects.filter(created_at__gte=query.from_start_time)
    if query.to_start_time is not None:
        results = results.filter(created_at__lt=query.to_start_time)
    of_run = {"experimentId": _by_id, "experimentName": called, "datasetId": _by_dataset}
    for matches in _matching(query, of_run, others=("experimentItemId",)):
        runs = runs.filter(matches)
    for matches in _matching(query, {"experimentItemId": _by_item}, others=tuple(of_run)):
        results = results.filter(matches)
    return _page(
        _with_parts(results.filter(run__in=runs), groups),
        query,
        ("-id",),
        lambda result: LangfuseExperimentItem.of(result, groups, query.score_limit),
    )


def _matching(query: _ListQuery, columns: Mapping[str, Matches], *, others: tuple[str, ...] = ()) -> list[Q]:
    found = query.conditions((*columns, *others))
    if any(len(values) > _MAX_WANTED for _, values in found):
        raise InvalidInput(f"At most {_MAX_WANTED} values of a column can be asked for at once.")
    return [columns[column](values) for column, values in found if column in columns]


def _by_id(values: Sequence[str]) -> Q:
    return Q(external_id__in=values) | Q(external_id=None, pk__in=list(own_ids(values)))


def _by_dataset(values: Sequence[str]) -> Q:
    return Q(dataset__in=[int(value) for value in values if _NUMBER.match(value)])


def _by_item(values: Sequence[str]) -> Q:
    numbers = [number for value in values if (number := number_of(value)) is not None]
    return Q(case__external__key__in=values) | Q(case__in=numbers, case__external=None)


def _slim(runs: QuerySet[Run]) -> QuerySet[Run]:
    return runs.defer("prompts", "endpoints", "judges", "scorers")


def _with_parts(results: QuerySet[Result], groups: set[str]) -> QuerySet[Result]:
    """With what an item shows, by one query, and without the long texts that it does not."""
    joined = results.select_related("run", "case__external", "external")
    left_out = [f"run__{name}" for name in ("prompts", "endpoints", "judges", "scorers", "scores")]
    left_out += ["case__scorers", "external__calls"]
    left_out += [] if "io" in groups else ["output", "error", "case__vars", "case__expected"]
    left_out += [] if "itemMetadata" in groups else ["case__metadata"]
    left_out += [] if "experimentMetadata" in groups else ["run__about"]
    left_out += [] if "scores" in groups else ["scores"]
    return joined.defer(*left_out)


def _page(
    rows: QuerySet[M], query: _ListQuery, order: Sequence[str], show: Callable[[M], Any]
) -> HttpResponse:
    bounds = (("limit", query.limit, MAX_PAGE), ("scoreLimit", query.score_limit, MAX_SCORES))
    for name, value, most in bounds:
        if not 1 <= value <= most:
            raise InvalidInput(f"{name} must be between 1 and {most}, not {value}.")
    wanted = pagination.PageQuery(limit=query.limit, cursor=query.cursor)
    page = pagination.paginate(rows, wanted, order=order, show=show)
    meta = {} if page.next_cursor is None else {"cursor": page.next_cursor}
    return json_response({"data": page.items, "meta": meta})
