"""Experiments over data that no data set holds: their items are kept in one named after the experiment."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations import services
from evaluations.compat.langfuse.spans import Span
from evaluations.models import Case, Dataset
from evaluations.schemas import NewCase
from evaluations.services.items import Item

FOLDER = "experiments"
_UNFIT = re.compile(r"[^\w.\- ]+")
_RUN_TIME = re.compile(r" - \d{4}-\d\d-\d\dT\S+Z\Z")

ItemKey = tuple[str, str]


def is_local(span: Span) -> bool:
    return span.is_of_experiment and not span.experiment("dataset.id")


def key_of_local(span: Span) -> ItemKey:
    """The SDK tells items of local data apart by a hash of their input."""
    return span.experiment("id"), span.experiment("item.id")


def keep_local_items(project: Project, spans: Iterable[Span]) -> dict[ItemKey, Case]:
    """The cases of local data whose outcome is among `spans`; their calls alone do not tell the input."""
    datasets: dict[str, Dataset] = {}
    cases: dict[ItemKey, Case] = {}
    for span in spans:
        if is_local(span) and span.span_id == span.root_id and key_of_local(span) not in cases:
            name = _dataset_name(span)
            dataset = datasets[name] = datasets.get(name) or _dataset(project, name)
            try:
                cases[key_of_local(span)] = services.put_item(dataset, _item(dataset, span)).case
            except InvalidInput:  # an input that cannot be kept
                continue
    return cases


def _dataset_name(span: Span) -> str:
    name = span.observation("metadata.experiment_name") or _RUN_TIME.sub("", span.experiment("name"))
    return f"{FOLDER}/{_UNFIT.sub('-', name)[:150].strip() or 'unnamed'}"


def _dataset(project: Project, name: str) -> Dataset:
    known = project.datasets.filter(name=name).first()
    if known is None:
        try:
            return services.create_dataset(project, name=name, description="Data of an experiment's script.")
        except Conflict:  # somebody created it between the two queries
            known = project.datasets.get(name=name)
    return known


def _item(dataset: Dataset, span: Span) -> Item:
    value = _value(span.observation("input"))
    is_plain = not isinstance(value, dict)
    metadata = _value(span.experiment("item.metadata"))
    case = NewCase(
        vars={"input": value} if is_plain else value,
        expected=_value(span.experiment("item.expected_output")),
        metadata=metadata if isinstance(metadata, dict) else {},
    )
    return Item(f"{dataset.pk}/{span.experiment('item.id')}"[:200], case, is_plain)


def _value(text: str) -> Any:
    """What the SDK wrote: texts as they are, everything else as JSON. None for nothing."""
    if text[:1] not in ("{", "["):
        return text or None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
