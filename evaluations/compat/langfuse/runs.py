"""`/api/public/dataset-run-items` and `/datasets/{name}/runs`: runs as SDK 3 and 4 tell of them."""

from django.db import transaction
from django.http import HttpResponse

from autoforge.errors import Conflict, InvalidInput, NotFound
from autoforge.models import Project
from evaluations import services
from evaluations.compat.langfuse.datasets import dataset_called
from evaluations.compat.langfuse.identity import called, check_run_name, identity_of
from evaluations.compat.langfuse.items import key_of, require_case
from evaluations.compat.langfuse.schemas import LangfuseRun, NewRunItem, RunItem, RunWithItems
from evaluations.models import ExternalCell, Run
from evaluations.services.external import Spot
from prompts.compat.langfuse.surface import Exchange, PageQuery, json_response, page_of

MAX_LISTED_ITEMS = 10_000


def link_item(exchange: Exchange) -> HttpResponse:
    """A trace becomes a cell of the run of that name, which is opened by its first."""
    new = exchange.body(NewRunItem)
    if not new.trace_id or not new.run_name:
        raise InvalidInput("runName and traceId are needed.")
    if max(len(new.trace_id), len(new.observation_id or "")) > 64:
        raise InvalidInput("traceId and observationId have at most 64 characters.")
    check_run_name(new.run_name)
    case = require_case(exchange.project, new.dataset_item_id)
    identity = identity_of(case.dataset, new.run_name)
    with transaction.atomic():
        run = services.open_run(exchange.project, identity, case.dataset, actor=exchange.actor)
        [cell] = services.link_cells(run, [(case, Spot(new.trace_id, new.observation_id or ""))])
        if (cell.run_id, cell.case_id) != (run.pk, case.pk):
            raise Conflict("This trace belongs to another run or item already.")
        services.describe_external_run(run, description=new.run_description, metadata=new.metadata)
        services.tell_progress(run)
    return json_response(_item(cell, run, new.dataset_item_id))


def _item(cell: ExternalCell, run: Run, key: str) -> RunItem:
    return RunItem(
        id=str(cell.pk),
        dataset_run_id=run.external_id or str(run.pk),
        dataset_run_name=run.name,
        dataset_item_id=key,
        trace_id=cell.trace_id,
        observation_id=cell.observation_id or None,
        created_at=cell.created_at,
        updated_at=cell.created_at,
    )


def list_runs(exchange: Exchange, name: str) -> HttpResponse:
    """All runs over the data set, newest first, those that we execute among them."""
    runs = Run.objects.filter(dataset=dataset_called(exchange.project, name)).select_related("dataset")
    slim = runs.defer("prompts", "endpoints", "judges", "scorers").order_by("-created_at", "id")
    return page_of(slim, exchange.query(PageQuery), lambda page: [LangfuseRun.of(run) for run in page])


def show_run(exchange: Exchange, name: str, run_name: str) -> HttpResponse:
    """A run with its items."""
    run = _find_run(exchange.project, name, run_name)
    cells = run.external_cells.select_related("case__external").order_by("pk")[:MAX_LISTED_ITEMS]
    items = [_item(cell, run, key_of(cell.case)) for cell in cells]
    return json_response(RunWithItems.of(run, dataset_run_items=items))


def delete_run(exchange: Exchange, name: str, run_name: str) -> HttpResponse:
    """A run that was executed by an SDK, with its results."""
    services.delete_external_run(_find_run(exchange.project, name, run_name))
    return json_response({"message": "Dataset run successfully deleted"})


def _find_run(project: Project, name: str, run_name: str) -> Run:
    """The newest of that name. Raises NotFound."""
    runs = Run.objects.filter(called([run_name]), dataset=dataset_called(project, name))
    run = runs.select_related("dataset").order_by("-created_at").first()
    if run is None:
        raise NotFound("Dataset run not found")
    return run
