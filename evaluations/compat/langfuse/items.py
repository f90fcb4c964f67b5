"""Finds the case that a client means by an item's id."""

import re
from collections.abc import Collection

from autoforge.errors import NotFound
from autoforge.models import Project
from evaluations.compat.langfuse.schemas import NATIVE_PREFIX
from evaluations.models import Case, ExternalCase

_NATIVE = re.compile(NATIVE_PREFIX + r"[1-9][0-9]{0,17}\Z")


def find_cases(project: Project, keys: Collection[str]) -> dict[str, Case]:
    """The project's cases under those ids, with their data sets: of this surface, or `case-<id>`."""
    cases = Case.objects.filter(dataset__project=project).select_related("dataset__project", "external")
    named = cases.filter(external__key__in=keys, external__is_current=True)
    found = {case.external.key: case for case in named}
    numbers = [number for key in keys if key not in found and (number := number_of(key)) is not None]
    if numbers:
        native = cases.current().filter(pk__in=numbers, external=None)
        found |= {f"{NATIVE_PREFIX}{case.pk}": case for case in native}
    return found


def number_of(key: str) -> int | None:
    """The case that `case-<id>` names."""
    return int(key.removeprefix(NATIVE_PREFIX)) if _NATIVE.match(key) else None


def find_case(project: Project, key: str) -> Case | None:
    """One of them."""
    return find_cases(project, [key]).get(key)


def require_case(project: Project, key: str) -> Case:
    """The same. Raises NotFound."""
    case = find_case(project, key)
    if case is None:
        raise NotFound("Dataset item not found")
    return case


def item_of(case: Case | None) -> ExternalCase | None:
    """What this surface knows of a case that `find_case` found."""
    return getattr(case, "external", None)


def key_of(case: Case) -> str:
    """The id under which a client finds it again."""
    item = item_of(case)
    return item.key if item else f"{NATIVE_PREFIX}{case.pk}"
