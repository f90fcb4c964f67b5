"""Experiments over data that no data set holds: their items are kept in one named after the experiment."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations import services
from evaluations.compat.langfuse.spans import Span
from evaluations.models import Case, Dataset
from evaluations.schemas import NewCase
from evaluations.services.datasets import RESERVED
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
    outcomes: defaultdict[str, dict[ItemKey, Span]] = defaultdict(dict)
    for span in spans:
        if is_local(span) and span.span_id == span.root_id:
            outcomes[_dataset_name(span)].setdefault(key_of_local(span), span)
    cases: dict[ItemKey, Case] = {}
    for name, of_dataset in outcomes.items():
        with suppress(InvalidInput):
            cases |= _kept(_dataset(project, name), of_dataset)
    return cases


def _kept(dataset: Dataset, outcomes: Mapping[ItemKey, Span]) -> dict[ItemKey, Case]:
    """All at once; where one of them cannot be kept, one by one without it."""
    try:
        return _put(dataset, outcomes)
    except (InvalidInput, Conflict):
        cases: dict[ItemKey, Case] = {}
    for key, span in outcomes.items():
        with suppress(InvalidInput, Conflict):
            cases |= _put(dataset, {key: span})
    return cases


def _put(dataset: Dataset, outcomes: Mapping[ItemKey, Span]) -> dict[ItemKey, Case]:
    items = services.put_items(dataset, [_item(dataset, span) for span in outcomes.values()])
    return {key: item.case for key, item in zip(outcomes, items, strict=True)}


def _dataset_name(span: Span) -> str:
    given = span.observation("metadata.experiment_name") or _RUN_TIME.sub("", span.experiment("name"))
    name = _UNFIT.sub("-", given)[:150].strip() or "unnamed"
    return f"{FOLDER}/{name}-" if name in RESERVED else f"{FOLDER}/{name}"


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
