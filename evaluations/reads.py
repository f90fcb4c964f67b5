"""Finding runs and their results: filters and orders that callers name."""

from functools import cache
from uuid import UUID

from autoforge.db.statements import Statement
from autoforge.errors import InvalidInput, NotFound
from autoforge.models import Project
from autoforge.pagination import Page, check_limit, page_of, paginate
from evaluations.models import Result, ResultQuerySet, ResultState, Run, RunState
from evaluations.schemas import ResultOut, ResultsQuery, RunOut, RunsQuery, columns_of

_SORTS = {
    "id": ["id"],
    "-id": ["-id"],
    "score": ["score_key", "id"],
    "-score": ["-score_key", "id"],
    "latency": ["latency_ms_key", "id"],
    "-latency": ["-latency_ms_key", "id"],
}

_NEWEST = ["-created_at", "id"]

_one_run = Statement(
    lambda project, run_id: Run.objects.filter(project=project, pk=run_id).select_related("dataset")[:1]
)


def find_run(project: Project, run_id: UUID) -> Run:
    """The project's run, with its data set. Raises NotFound."""
    run = _one_run.first(project=project.pk, run_id=run_id)
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    return run


def page_of_runs(project: Project, query: RunsQuery) -> Page[RunOut]:
    """Runs, newest first. Raises InvalidInput for an unknown state."""
    check_limit(query)
    if query == RunsQuery(limit=query.limit):
        rows = _newest_runs(query.limit).rows(project=project.pk)
        return page_of(rows, query, order=_NEWEST, show=RunOut.of)
    runs = Run.objects.filter(project=project).for_show()
    if query.state is not None:
        _check_choice("state", query.state, RunState.values)
        runs = runs.filter(state=query.state)
    if query.dataset is not None:
        runs = runs.filter(dataset__name=query.dataset)
    return paginate(runs, query, order=_NEWEST, show=RunOut.of)


@cache
def _newest_runs(limit: int) -> Statement[Run]:
    return Statement(
        lambda project: Run.objects.filter(project=project).for_show().order_by(*_NEWEST)[: limit + 1]
    )


def page_of_results(run: Run, query: ResultsQuery) -> Page[ResultOut]:
    """Results that match the filters. Raises InvalidInput for an unknown state or order."""
    _check_choice("sort", query.sort, list(_SORTS))
    check_limit(query)
    columns = columns_of(run)

    def show(row: Result) -> ResultOut:
        return ResultOut.of(row, columns[row.column])

    if query == ResultsQuery(limit=query.limit):
        rows = _first_results(query.limit).rows(run=run.pk)
        return page_of(rows, query, order=_SORTS["id"], show=show)
    results = _filtered(run, query)
    order = _SORTS[query.sort]
    if order[0].endswith("_key"):
        field, is_descending = order[0].strip("-").removesuffix("_key"), order[0].startswith("-")
        results = results.nulls_last(field, descending=is_descending)
    return paginate(results, query, order=order, show=show)


@cache
def _first_results(limit: int) -> Statement[Result]:
    return Statement(lambda run: Result.objects.filter(run=run).order_by("id")[: limit + 1])


def _filtered(run: Run, query: ResultsQuery) -> ResultQuerySet:
    if query.state is not None:
        _check_choice("state", query.state, ResultState.values)
    wanted = {
        "state": query.state,
        "score__gte": query.min_score,
        "score__lte": query.max_score,
        "latency_ms__gte": query.min_latency_ms,
        "latency_ms__lte": query.max_latency_ms,
        "cached": query.cached,
        "case_id": query.case,
    }
    results = Result.objects.filter(
        run=run, **{name: value for name, value in wanted.items() if value is not None}
    )
    columns = _chosen_columns(run, query)
    return results if len(columns) == run.columns else results.in_columns(columns)


def _chosen_columns(run: Run, query: ResultsQuery) -> list[int]:
    return [
        index
        for index, column in enumerate(columns_of(run))
        if query.column in (None, index)
        and query.prompt in (None, column.prompt)
        and query.version in (None, column.version)
        and query.model in (None, column.model)
    ]


def _check_choice(name: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise InvalidInput(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
