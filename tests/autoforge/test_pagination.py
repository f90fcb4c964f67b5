"""Keyset pages: complete, stable, and safe against invented cursors."""

import base64
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db.models import F
from django.utils import timezone

from autoforge.errors import InvalidInput
from autoforge.models import ApiKey, Project, Role
from autoforge.pagination import PageQuery, paginate
from autoforge.services import create_api_key


@pytest.fixture
def keys(project: Project) -> list[str]:
    """Seven keys whose names repeat and whose times differ."""
    now = timezone.now()
    for number in range(7):
        key = create_api_key(project, name=f"k{number % 3}", role=Role.VIEWER).key
        ApiKey.objects.filter(pk=key.pk).update(created_at=now - timedelta(seconds=number // 2))
    return list(ApiKey.objects.order_by("pk").values_list("public_id", flat=True))


def walk(order: list[str], limit: int, queryset: Any = None) -> list[str]:
    """Public ids of all pages in order."""
    seen: list[str] = []
    query = PageQuery(limit=limit)
    while True:
        rows = ApiKey.objects.all() if queryset is None else queryset
        page = paginate(rows, query, order=order, show=lambda key: key.public_id)
        assert len(page.items) <= limit
        seen += page.items
        if page.next_cursor is None:
            return seen
        query = PageQuery(limit=limit, cursor=page.next_cursor)


@pytest.mark.parametrize(
    "order", [["pk"], ["-pk"], ["name", "pk"], ["-created_at", "pk"], ["created_at", "-pk"], ["public_id"]]
)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_all_rows_come_once_in_order(keys: list[str], order: list[str], limit: int) -> None:
    expected = list(ApiKey.objects.order_by(*order).values_list("public_id", flat=True))
    assert walk(order, limit) == expected


def test_an_annotation_may_be_the_order(keys: list[str]) -> None:
    rows = ApiKey.objects.annotate(rank=F("id") * -1)
    assert walk(["rank"], 3, rows) == keys[::-1]


def test_rows_that_come_and_go_shift_nothing(keys: list[str], project: Project) -> None:
    first = paginate(ApiKey.objects.all(), PageQuery(limit=3), order=["pk"], show=lambda key: key.public_id)
    ApiKey.objects.filter(public_id__in=keys[:2]).delete()
    rest = paginate(
        ApiKey.objects.all(),
        PageQuery(limit=50, cursor=first.next_cursor),
        order=["pk"],
        show=lambda key: key.public_id,
    )
    assert rest.items == keys[3:]


def test_a_page_is_one_query(keys: list[str], django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        page = paginate(ApiKey.objects.all(), PageQuery(limit=2), order=["pk"], show=str)
    with django_assert_num_queries(1):
        paginate(ApiKey.objects.all(), PageQuery(cursor=page.next_cursor), order=["pk"], show=str)


def forged(*values: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(list(values))).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense!",
        "AAAA",
        "Ä",
        forged(),
        forged("name"),
        forged("name", "not a number"),
        forged("name", 1, 2),
        forged("a\0b", 1),
        forged(["name"], 1),
        forged(None, 1),
    ],
)
@pytest.mark.django_db
def test_an_invented_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="start again without it"):
        paginate(ApiKey.objects.all(), PageQuery(cursor=cursor), order=["name", "pk"], show=str)


@pytest.mark.parametrize(
    "moment", [1, 2.5, "", "soon", "2020-13-45", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"]
)
@pytest.mark.django_db
def test_an_invented_moment_is_refused(moment: Any) -> None:
    with pytest.raises(InvalidInput, match="start again without it"):
        paginate(
            ApiKey.objects.all(), PageQuery(cursor=forged(moment, 1)), order=["created_at", "pk"], show=str
        )


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1e300, float("inf"), float("nan")])
@pytest.mark.django_db
def test_a_number_that_no_column_holds_is_harmless(number: float) -> None:
    try:
        page = paginate(ApiKey.objects.all(), PageQuery(cursor=forged(number)), order=["pk"], show=str)
    except InvalidInput:
        return
    assert page.items == []


@pytest.mark.parametrize("limit", [0, -1, 201])
@pytest.mark.django_db
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInput, match="between 1 and 200"):
        paginate(ApiKey.objects.all(), PageQuery(limit=limit), order=["pk"], show=str)
