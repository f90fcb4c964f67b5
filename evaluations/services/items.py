"""Cases under the ids of another system's clients: an item changes by a new case in its old one's place."""

from dataclasses import dataclass, field

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations.models import Case, Dataset, ExternalCase
from evaluations.schemas import NewCase
from evaluations.services.datasets import add_cases

MAX_KEY_CHARS = 200


@dataclass(frozen=True, slots=True)
class Item:
    """What a client knows of a case. `is_plain`: its input is no object, but `vars["input"]` alone."""

    key: str
    case: NewCase
    is_plain: bool
    is_archived: bool = False
    sources: dict[str, str] = field(default_factory=dict)


@transaction.atomic
def put_item(dataset: Dataset, item: Item) -> ExternalCase:
    """The item as it is now; of what is there already nothing is written.

    Raises InvalidInput for content that cannot be kept, Conflict for an id of another data set.
    """
    if not 1 <= len(item.key) <= MAX_KEY_CHARS:
        raise InvalidInput(f"id must have 1 to {MAX_KEY_CHARS} characters.")
    Dataset.objects.select_for_update().get(pk=dataset.pk)
    known = find_item(dataset.project, item.key)
    if known is None:
        [case] = add_cases(dataset, [item.case])
        known = _name_new(case, item)
    if known.case.dataset_id != dataset.pk:
        raise Conflict(f"The item {item.key!r} belongs to another data set.")
    if not _is_same(known, item):
        _replace(known, item)
    return known


def _name_new(case: Case, item: Item) -> ExternalCase:
    try:
        with transaction.atomic():
            return ExternalCase.objects.create(
                project=case.dataset.project,
                key=item.key,
                case=case,
                is_plain=item.is_plain,
                **item.sources,
            )
    except IntegrityError:
        raise Conflict(f"The item {item.key!r} has just been created in another data set.") from None


def find_item(project: Project, key: str) -> ExternalCase | None:
    """The project's item, with its case and data set."""
    items = ExternalCase.objects.select_related("case__dataset__project")
    return items.filter(project=project, key=key).first()


def _is_same(known: ExternalCase, item: Item) -> bool:
    case = known.case
    is_archived = case.superseded_by is not None
    content = (case.vars, case.expected, case.metadata, known.is_plain, is_archived)
    return content == (
        item.case.vars,
        item.case.expected,
        item.case.metadata,
        item.is_plain,
        item.is_archived,
    )


def _replace(known: ExternalCase, item: Item) -> None:
    """A case in place of the item's present one; of an archived item it is superseded from its start."""
    old = known.case
    [new] = add_cases(old.dataset, [item.case])
    if old.superseded_by is None:
        Case.objects.filter(pk=old.pk).update(superseded_by=new.pk)
    if item.is_archived:
        Case.objects.filter(pk=new.pk).update(superseded_by=new.pk)
        new.superseded_by = new.pk
    gone = (old.superseded_by is None) + item.is_archived
    Dataset.objects.filter(pk=old.dataset_id).update(case_count=F("case_count") - gone)
    known.case, known.is_plain, known.updated_at = new, item.is_plain, timezone.now()
    for name, value in item.sources.items():
        setattr(known, name, value)
    known.save()


def name_case(case: Case, key: str) -> ExternalCase:
    """`case` as an item, if nobody has made it one meanwhile."""
    fields = {"project": case.dataset.project, "key": key}
    return ExternalCase.objects.get_or_create(case=case, defaults=fields)[0]
