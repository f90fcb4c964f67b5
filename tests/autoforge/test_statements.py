"""Statements answer as the querysets that they were built from, at the price of their execution."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Q
from django.utils import timezone

from autoforge.db.statements import Statement
from autoforge.models import ApiKey, Project, Role
from autoforge.services import create_api_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def keys(project: Project) -> list[ApiKey]:
    return [create_api_key(project, name=name, role=Role.VIEWER).key for name in ("a", "b", "b")]


def test_the_same_shape_takes_other_values(keys: list[ApiKey], project: Project) -> None:
    named = Statement(lambda project, name: ApiKey.objects.filter(project=project, name=name).order_by("-pk"))
    for name, expected in (("a", keys[:1]), ("b", keys[:0:-1]), ("it's 100 %s", [])):
        assert list(named.rows(project=project.pk, name=name)) == expected
    assert named.first(project=project.pk, name="a") == keys[0]
    assert named.first(project=0, name="a") is None


def test_each_set_of_names_is_a_shape(keys: list[ApiKey]) -> None:
    some = Statement(lambda **values: ApiKey.objects.filter(**values).order_by("pk"))
    assert list(some.rows(name="b")) == keys[1:]
    assert list(some.rows(pk=keys[0].pk)) == keys[:1]
    assert list(some.rows()) == keys


def test_related_rows_come_along(
    keys: list[ApiKey], project: Project, django_assert_num_queries: Any
) -> None:
    whole = Statement(lambda pk: ApiKey.objects.select_related("project").filter(pk=pk))
    for key in keys:
        with django_assert_num_queries(1):
            found = whole.first(pk=key.pk)
            assert found is not None and found.project == project


def test_values_of_every_type_arrive(keys: list[ApiKey]) -> None:
    soon = timezone.now() + timedelta(hours=1)
    ApiKey.objects.filter(pk=keys[1].pk).update(expires_at=soon)
    found = Statement(
        lambda at, other, public: ApiKey.objects.filter(
            Q(expires_at=at) | Q(expires_at__gt=other) | Q(public_id=public)
        ).order_by("pk")
    )
    rows = found.rows(at=soon, other=soon + timedelta(hours=1), public=keys[2].public_id)
    assert list(rows) == keys[1:]


def test_a_row_changed_since_is_read_anew(keys: list[ApiKey]) -> None:
    one = Statement(lambda pk: ApiKey.objects.filter(pk=pk))
    before = one.first(pk=keys[0].pk)
    ApiKey.objects.filter(pk=keys[0].pk).update(name="other")
    after = one.first(pk=keys[0].pk)
    assert before is not None and after is not None
    assert (before.name, after.name) == ("a", "other")
