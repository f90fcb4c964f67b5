"""Queries that Django compiles once: building the SQL of a query costs more than to execute it."""

import copy
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.models import Expression, Field, Model, QuerySet
from django.db.models.sql.compiler import SQLCompiler

M = TypeVar("M", bound=Model)

_FIELDS: dict[type, "Field[Any, Any]"] = {
    int: models.BigIntegerField(),
    bool: models.BooleanField(),
    str: models.TextField(),
    float: models.FloatField(),
    UUID: models.UUIDField(),
    datetime: models.DateTimeField(),
    Decimal: models.DecimalField(max_digits=18, decimal_places=9),
}


class Slot(Expression):
    """Stands where a value will be: int, bool, str, float, UUID, datetime, Decimal."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", (self,)

    def bound(self, value: Any, connection: Any) -> Any:
        """`value` as the database takes it. Raises KeyError for a type that has no column."""
        return _FIELDS[type(value)].get_db_prep_value(value, connection)


class _Compiled(NamedTuple):
    compiler: SQLCompiler
    sql: str
    params: tuple[Any, ...]


class Statement(Generic[M]):
    """A queryset of which only the values change: its shape is the names that `rows` gets values for.

    `build` gets a Slot for each of these names, to be used where the value would be, and returns the
    queryset. What Django does to the values of a filter, as checking an integer's range, is not done:
    they come validated.
    """

    def __init__(self, build: Callable[..., QuerySet[M]]) -> None:
        self._build = build
        self._shapes: dict[tuple[str, ...], _Shape[M]] = {}

    def rows(self, **values: Any) -> QuerySet[M]:
        """The queryset with its values. To be read as it is: a filter on top of it would be ignored."""
        shape = self._shapes.get(names := tuple(values))
        if shape is None:
            shape = self._shapes[names] = _Shape(self._build(**{name: Slot(name) for name in names}))
        return shape.with_values(values)

    def first(self, **values: Any) -> M | None:
        """The first row of a queryset that is cut to one."""
        return next(iter(self.rows(**values)), None)


class _Shape(Generic[M]):
    """One queryset with Slots, and what each kind of database makes of it."""

    def __init__(self, queryset: QuerySet[M]) -> None:
        self._queryset = queryset
        self._compiled: dict[str, _Compiled] = {}

    def with_values(self, values: dict[str, Any]) -> QuerySet[M]:
        queryset = self._queryset.all()
        queryset.query.get_compiler = partial(self._compiler, values)  # type: ignore[method-assign]  # of this one
        return queryset

    def _compiler(self, values: dict[str, Any], using: str, **_: Any) -> SQLCompiler:
        """Django's compiler as it is after its work, which need not be done again."""
        connection = connections[using]
        compiled = self._compiled.get(connection.vendor) or self._compile(connection)
        params = tuple(
            param.bound(values[param.name], connection) if isinstance(param, Slot) else param
            for param in compiled.params
        )
        compiler: Any = copy.copy(compiled.compiler)
        compiler.connection, compiler.using = connection, using
        compiler.as_sql = lambda *args, **kwargs: (compiled.sql, params)
        return compiler

    def _compile(self, connection: Any) -> _Compiled:
        compiler = self._queryset.query.clone().get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        self._compiled[connection.vendor] = compiled = _Compiled(compiler, sql, tuple(params))
        return compiled
