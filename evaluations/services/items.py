"""Cases under the ids of another system's clients: an item changes by a new case in its old one's place."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations.models import Case, Dataset, ExternalCase
from evaluations.schemas import NewCase
from evaluations.services.datasets import add_cases, lock_dataset

MAX_KEY_CHARS = 200


@dataclass(frozen=True, slots=True)
class Item:
    """What a client knows of a case. `is_plain`: its input is no object, but `vars["input"]` alone."""

    key: str
    case: NewCase
    is_plain: bool
    is_archived: bool = False
    sources: dict[str, str] = field(default_factory=dict)


def put_item(dataset: Dataset, item: Item) -> ExternalCase:
    """The item as it is now. Raises as `put_items`."""
    return put_items(dataset, [item])[0]


@transaction.atomic
def put_items(dataset: Dataset, items: Sequence[Item]) -> list[ExternalCase]:
    """The items as they are now, in order; of what is there already nothing is written.

    Raises InvalidInput for content that cannot be kept, Conflict for an id of another data set.
    """
    if not all(1 <= len(item.key) <= MAX_KEY_CHARS for item in items):
        raise InvalidInput(f"id must have 1 to {MAX_KEY_CHARS} characters.")
    lock_dataset(dataset)
    known = _known_items(dataset.project, {item.key for item in items})
    known |= _add(dataset, {item.key: item for item in items if item.key not in known})
    for item in items:
        _bring_up_to_date(dataset, known[item.key], item)
    return [known[item.key] for item in items]


def _known_items(project: Project, keys: Collection[str]) -> dict[str, ExternalCase]:
    items = ExternalCase.objects.filter(project=project, key__in=keys, is_current=True)
    return {row.key: row for row in items.select_related("case__dataset")}


def _add(dataset: Dataset, new: Mapping[str, Item]) -> dict[str, ExternalCase]:
    if not new:
        return {}
    cases = add_cases(dataset, [item.case for item in new.values()])
    rows = [
        ExternalCase(project=dataset.project, key=item.key, case=case, is_plain=item.is_plain, **item.sources)
        for item, case in zip(new.values(), cases, strict=True)
    ]
    try:
        with transaction.atomic():
            return {row.key: row for row in ExternalCase.objects.bulk_create(rows)}
    except IntegrityError:
        raise Conflict("An item of this id has just been created in another data set.") from None


def _bring_up_to_date(dataset: Dataset, known: ExternalCase, item: Item) -> None:
    if known.case.dataset_id != dataset.pk:
        raise Conflict(f"The item {item.key!r} belongs to another data set.")
    has_other_sources = any(getattr(known, name) != value for name, value in item.sources.items())
    is_same = _is_same(known, item)
    if is_same and not has_other_sources:
        return
    for name, value in item.sources.items():
        setattr(known, name, value)
    known.updated_at = timezone.now()
    if is_same:
        known.save(update_fields=[*item.sources, "updated_at"])
    else:
        _replace(known, item)


def _is_same(known: ExternalCase, item: Item) -> bool:
    case, new = known.case, item.case
    is_archived = case.superseded_by is not None
    return (known.is_plain, is_archived) == (item.is_plain, item.is_archived) and _is_same_json(
        [case.vars, case.expected, case.metadata, case.scorers],
        [new.vars, new.expected, new.metadata, new.scorers],
    )


def _is_same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is no number, as it is in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same_json(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same_json, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _replace(known: ExternalCase, item: Item) -> None:
    """A case in place of the item's present one; of an archived item it is superseded from its start."""
    old = known.case
    past = ExternalCase(
        project_id=known.project_id, key=known.key, case=old, is_current=False, is_plain=known.is_plain
    )
    [new] = add_cases(old.dataset, [item.case])
    if old.superseded_by is None:
        Case.objects.filter(pk=old.pk).update(superseded_by=new.pk)
    if item.is_archived:
        Case.objects.filter(pk=new.pk).update(superseded_by=new.pk)
        new.superseded_by = new.pk
    gone = (old.superseded_by is None) + item.is_archived
    Dataset.objects.filter(pk=old.dataset_id).update(case_count=F("case_count") - gone)
    known.case, known.is_plain = new, item.is_plain
    known.save()
    past.save()


def name_case(case: Case, key: str) -> ExternalCase:
    """`case` as an item, if nobody has made it one meanwhile."""
    fields = {"project": case.dataset.project, "key": key}
    return ExternalCase.objects.get_or_create(case=case, defaults=fields)[0]
