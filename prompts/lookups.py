"""Questions to JSON columns that PostgreSQL and SQLite answer alike."""

import json
from typing import Any

from django.db.models import JSONField, Lookup, Subquery


@JSONField.register_lookup
class HasElement(Lookup):
    """`tags__has_element="x"`: a JSON list holds a string, on PostgreSQL and SQLite."""

    lookup_name = "has_element"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, params = self.process_lhs(compiler, connection)
        return f"{column} @> %s::jsonb", (*params, json.dumps([self.rhs]))

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        column, params = self.process_lhs(compiler, connection)
        # `column` is SQL that Django built; the value is a parameter.
        sql = f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = %s)"  # noqa: S608  see above
        return sql, (*params, self.rhs)


class JsonList(Subquery):
    """The rows of a queryset of one column, which it calls `item`, as a list."""

    template = "to_jsonb(ARRAY(%(subquery)s))"
    output_field = JSONField()

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        template = "(SELECT json_group_array(item) FROM (%(subquery)s))"
        sql, params = self.as_sql(compiler, connection, template=template)
        return sql, tuple(params)
