"""`/api/public/v2/datasets` and `/dataset-items`: our data sets and cases."""

import uuid

from django.db import transaction
from django.http import HttpResponse

from autoforge.errors import Conflict, InvalidInput, NotFound
from autoforge.models import Project
from evaluations import services
from evaluations.api.datasets import find_dataset
from evaluations.compat.langfuse.items import find_case, item_of, require_case
from evaluations.compat.langfuse.schemas import (
    ItemsQuery,
    LangfuseDataset,
    LangfuseItem,
    NewDataset,
    NewItem,
)
from evaluations.models import Case, Dataset, ExternalCase
from evaluations.schemas import NewCase
from evaluations.services.items import Item
from prompts.compat.langfuse.surface import Exchange, PageQuery, json_response, page_of


def list_datasets(exchange: Exchange) -> HttpResponse:
    """By name."""
    rows = exchange.project.datasets.order_by("name")
    return page_of(
        rows, exchange.query(PageQuery), lambda page: [LangfuseDataset.of(dataset) for dataset in page]
    )


def put_dataset(exchange: Exchange) -> HttpResponse:
    """A data set, or new words about the one of that name."""
    new = exchange.body(NewDataset)
    if new.input_schema is not None or new.expected_output_schema is not None:
        raise InvalidInput("inputSchema and expectedOutputSchema are not supported: leave them out.")
    return json_response(LangfuseDataset.of(_stored(exchange.project, new)))


def _stored(project: Project, new: NewDataset) -> Dataset:
    known = project.datasets.filter(name=new.name).first()
    if known is None:
        try:
            return services.create_dataset(
                project, name=new.name, description=new.description or "", metadata=new.metadata
            )
        except Conflict:  # somebody created it between the two queries
            known = project.datasets.get(name=new.name)
    return services.describe_dataset(known, description=new.description, metadata=new.metadata)


def show_dataset(exchange: Exchange, name: str) -> HttpResponse:
    """Without its items."""
    return json_response(LangfuseDataset.of(dataset_called(exchange.project, name)))


def dataset_called(project: Project, name: str) -> Dataset:
    """Raises NotFound in Langfuse's words."""
    try:
        return find_dataset(project, name)
    except NotFound:
        raise NotFound("Dataset not found") from None


def list_items(exchange: Exchange) -> HttpResponse:
    """The items of a data set, in the order in which they came."""
    query = exchange.query(ItemsQuery)
    if query.version is not None:
        raise InvalidInput("Earlier versions of a data set are not kept by time: leave version out.")
    rows = Case.objects.current().filter(dataset__project=exchange.project)
    if query.dataset_name is not None:
        rows = rows.filter(dataset=dataset_called(exchange.project, query.dataset_name))
    return page_of(rows.select_related("dataset").order_by("pk"), query, _shown_items)


def _shown_items(cases: list[Case]) -> list[LangfuseItem]:
    known = {row.case_id: row for row in ExternalCase.objects.filter(case__in=cases)}
    return [LangfuseItem.of(case, known.get(case.pk), case.dataset) for case in cases]


def put_item_of(exchange: Exchange) -> HttpResponse:
    """A new item, or what is new about one."""
    new = exchange.body(NewItem)
    dataset = dataset_called(exchange.project, new.dataset_name)
    key = new.id or str(uuid.uuid4())
    with transaction.atomic():
        services.lock_dataset(dataset)
        known = find_case(exchange.project, key)
        if known and item_of(known) is None:
            services.name_case(known, key)
        stored = services.put_item(dataset, _item(key, new, known))
    return json_response(LangfuseItem.of(stored.case, stored, dataset))


def _item(key: str, new: NewItem, known: Case | None) -> Item:
    """`new` over what is known of the item: null, too, leaves a field as it is."""
    case, item = known or Case(), item_of(known)
    is_plain = item.is_plain if item else False
    values = case.vars
    if new.input is not None:
        is_plain = not isinstance(new.input, dict)
        values = {"input": new.input} if is_plain else new.input
    metadata = case.metadata if new.metadata is None else new.metadata
    if not isinstance(metadata, dict):
        raise InvalidInput("metadata must be an object.")
    expected = case.expected if new.expected_output is None else new.expected_output
    return Item(
        key=key,
        case=NewCase(vars=values, expected=expected, metadata=metadata, scorers=case.scorers),
        is_plain=is_plain,
        is_archived=new.status == "ARCHIVED" or (new.status is None and case.superseded_by is not None),
        sources=_sources(new),
    )


def _sources(new: NewItem) -> dict[str, str]:
    named = {"source_trace_id": new.source_trace_id, "source_observation_id": new.source_observation_id}
    if any(value and len(value) > 200 for value in named.values()):
        raise InvalidInput("sourceTraceId and sourceObservationId have at most 200 characters.")
    return {name: value for name, value in named.items() if value is not None}


def show_item(exchange: Exchange, key: str) -> HttpResponse:
    """One item, also an archived one."""
    case = require_case(exchange.project, key)
    return json_response(LangfuseItem.of(case, item_of(case), case.dataset))


def delete_item(exchange: Exchange, key: str) -> HttpResponse:
    """Archives it: runs that have it keep it."""
    dataset = require_case(exchange.project, key).dataset
    with transaction.atomic():
        services.lock_dataset(dataset)
        case = require_case(exchange.project, key)  # as it is now that it stays so
        item = item_of(case) or services.name_case(case, key)
        content = NewCase(
            vars=case.vars, expected=case.expected, metadata=case.metadata, scorers=case.scorers
        )
        services.put_item(dataset, Item(key, content, item.is_plain, is_archived=True))
    return json_response({"message": "Dataset item successfully deleted"})
