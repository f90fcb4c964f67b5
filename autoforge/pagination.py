"""Keyset pagination: a page costs the same wherever it is, and rows that come or go shift nothing."""

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from django.core.exceptions import ValidationError
from django.db.models import Field, Model, Q, QuerySet

from autoforge.errors import InvalidInput

T = TypeVar("T")
M = TypeVar("M", bound=Model)

MAX_PAGE = 200


class Page(msgspec.Struct, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


class PageQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of every list: `?limit=&cursor=`. Lists with filters extend it."""

    limit: int = 50
    cursor: str | None = None


def paginate(
    queryset: QuerySet[M],
    query: PageQuery,
    *,
    order: Sequence[str],
    show: Callable[[M], T],
) -> Page[T]:
    """At most `query.limit` rows in `order` (field names, '-' descends, the last one unique), by one query.

    Raises InvalidInput for a bad limit, or a cursor that this list did not hand out.
    """
    check_limit(query)
    if query.cursor:
        queryset = queryset.filter(_after(order, _decode(query.cursor, _fields(queryset, order))))
    return page_of(queryset.order_by(*order)[: query.limit + 1], query, order=order, show=show)


def check_limit(query: PageQuery) -> None:
    """Raises InvalidInput for a bad limit."""
    if not 1 <= query.limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be between 1 and {MAX_PAGE}, not {query.limit}.")


def page_of(found: Iterable[M], query: PageQuery, *, order: Sequence[str], show: Callable[[M], T]) -> Page[T]:
    """The page of which `found` are the rows, and one more if there are more."""
    rows = list(found)
    shown = rows[: query.limit]
    cursor = (
        _encode([getattr(shown[-1], name.lstrip("-")) for name in order]) if len(rows) > query.limit else None
    )
    return Page([show(row) for row in shown], cursor)


def _fields(queryset: QuerySet[M], order: Sequence[str]) -> "list[Field[Any, Any]]":
    """What each name in `order` holds: a column, or the result of an annotation."""
    meta, annotations = queryset.model._meta, queryset.query.annotations
    fields: list[Any] = []
    for name in (name.lstrip("-") for name in order):
        if name == "pk":
            fields.append(meta.pk)
        else:
            fields.append(annotations[name].output_field if name in annotations else meta.get_field(name))
    return fields


def _after(order: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows that sort after `values`: a < x, or a = x and b < y, …"""
    condition, equal = Q(), Q()
    for name, value in zip(order, values, strict=True):
        field = name.lstrip("-")
        condition |= equal & Q(**{f"{field}__{'lt' if name.startswith('-') else 'gt'}": value})
        equal &= Q(**{field: value})
    return condition


def _encode(values: list[Any]) -> str:
    plain = [value if isinstance(value, int | float | str) else str(value) for value in values]
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(plain)).decode().rstrip("=")


def _decode(cursor: str, fields: "Sequence[Field[Any, Any]]") -> list[Any]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        values = msgspec.msgpack.decode(raw, type=list[int | float | str])
        if b"\0" in b"".join(value.encode() for value in values if isinstance(value, str)):
            raise ValueError("no text column holds U+0000")
        return [_as_stored(field, value) for field, value in zip(fields, values, strict=True)]
    except (ValueError, TypeError, OverflowError, msgspec.DecodeError, ValidationError) as error:
        raise InvalidInput("cursor is not one that this list handed out: start again without it.") from error


def _as_stored(field: "Field[Any, Any]", value: float | str) -> Any:
    """`value` as `field` holds it. Raises what shows that it holds no such thing."""
    held = field.to_python(value)
    return held.astimezone(UTC) if isinstance(held, datetime) else held
