"""Writes to data sets: cases are only ever added."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from django.db import IntegrityError, reset_queries, transaction
from django.db.models import F

from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations.importing import BadRow, BadRows, Row, checked, read_csv, read_jsonl
from evaluations.models import Case, Dataset
from evaluations.schemas import NewCase

CaseFormat = Literal["csv", "jsonl"]
_BATCH = 500
_READERS = {"csv": read_csv, "jsonl": read_jsonl}
_NAME = re.compile(r"[\w.\- ]+(/[\w.\- ]+)*")
_MAX_NAME_CHARS = 200
# The last words of routes below a data set.
RESERVED = ("cases", "import")


def create_dataset(project: Project, *, name: str, description: str = "", metadata: Any = None) -> Dataset:
    """An empty data set. Raises InvalidInput for a bad name, Conflict for one that exists."""
    _check_name(name)
    if "\0" in description:
        raise InvalidInput("description contains a NUL character.")
    try:
        with transaction.atomic():
            return Dataset.objects.create(
                project=project, name=name, description=description, metadata=metadata
            )
    except IntegrityError:
        raise Conflict(f"There is a data set {name} already.") from None


def describe_dataset(dataset: Dataset, *, description: str | None, metadata: Any) -> Dataset:
    """`dataset` with other words about it; None leaves them as they are."""
    given = {"description": description, "metadata": metadata}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save(update_fields=list(changes))
    return dataset


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME_CHARS or name != name.strip() or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"name must be 1 to {_MAX_NAME_CHARS} letters, digits, spaces and _ - . with / between folders."
        )
    if name.rpartition("/")[2] in RESERVED:
        raise InvalidInput(f"name may not end in {' or '.join(RESERVED)}: routes are called so.")


def add_cases(dataset: Dataset, cases: list[NewCase]) -> list[Case]:
    """All of `cases`, in order. Raises InvalidInput naming each that cannot be kept, and adds none then."""
    bad = BadRows(unit="case")
    for number, case in enumerate(cases, start=1):
        try:
            checked(case)
        except BadRow as error:
            bad.add(number, str(error))
    bad.refuse()
    with transaction.atomic():
        lock_dataset(dataset)
        created = Case.objects.bulk_create([_row(dataset, case) for case in cases], batch_size=_BATCH)
        _count(dataset, len(created))
    return created


@transaction.atomic
def import_cases(dataset: Dataset, chunks: Iterable[bytes], *, format: CaseFormat) -> int:
    """The cases of a file, all or none; how many. Raises InvalidInput that names each bad line."""
    lock_dataset(dataset)
    bad = BadRows()
    count = 0
    for batch in _batches(_READERS[format](chunks, bad), _BATCH):
        count += len(batch)
        if not bad.count:
            Case.objects.bulk_create([_row(dataset, case) for _, case in batch])
            reset_queries()  # with DEBUG on, Django keeps the text of every statement
    bad.refuse()
    if not count:
        raise InvalidInput("The file has no cases.")
    _count(dataset, count)
    return count


def lock_dataset(dataset: Dataset) -> None:
    """One writer at a time: a run freezes its cases by the highest id, so ids must be visible in order."""
    Dataset.objects.select_for_update().get(pk=dataset.pk)


def _count(dataset: Dataset, added: int) -> None:
    Dataset.objects.filter(pk=dataset.pk).update(case_count=F("case_count") + added)


def _row(dataset: Dataset, case: NewCase) -> Case:
    return Case(
        dataset=dataset,
        vars=case.vars,
        expected=case.expected,
        metadata=case.metadata,
        scorers=case.scorers,
    )


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch
