"""Scorers of JSON: an output that is JSON, or that contains some, optionally of a given schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoforge.lazy import lazy
from autoforge.lru import Lru
from evaluations.scorers.json_text import find_json, load_json, load_yaml
from evaluations.scorers.registry import binary, scorer
from evaluations.scorers.types import AlwaysFails, Output, Score, ScorerError, ScorerSpec

if TYPE_CHECKING:
    from evaluations.scorers import schemas
else:
    schemas = lazy("evaluations.scorers.schemas")


def optional_schema(spec: ScorerSpec) -> Any:
    """A JSON Schema: an object, true or false, or its JSON or YAML text; None when there is none."""
    if spec.value is None or spec.value == "":
        return None
    try:
        return _load(spec.value) if isinstance(spec.value, str) else spec.value
    except ValueError as error:
        raise ScorerError("value", f"is neither JSON nor YAML: {error}.") from None


# The text of a run's schema is the same in each of its cells.
_load: Lru[str, Any] = Lru("schemas as text", load_yaml, max_entries=64, max_bytes=32 * 1_048_576, growth=10)


def usable(schema: Any) -> None:
    """Raises ScorerError when `schema` is no JSON Schema."""
    try:
        schemas.check_schema(schema if schema is not None else True)
    except schemas.SchemaError as error:
        raise ScorerError("value", f"is an invalid JSON schema: {error}.") from None


@scorer("is-json", reads=optional_schema, checks=usable, needs_value=False)
def is_json(output: Output, schema: Any, spec: ScorerSpec) -> Score:
    """The whole output is JSON, of the schema if there is one. A bad schema fails, negated or not."""
    try:
        value = load_json(output.text)
    except ValueError as error:
        return binary(False, f"is not JSON: {error}")
    against = _complaint(schema, value)
    return binary(against is None, against or _praise("is", schema))


@scorer("contains-json", reads=optional_schema, checks=usable, needs_value=False)
def contains_json(output: Output, schema: Any, spec: ScorerSpec) -> Score:
    """Somewhere in the output is a JSON object or array, of the schema if there is one."""
    against = "contains no JSON"
    for value in find_json(output.text):
        found = _complaint(schema, value)
        if found is None:
            return binary(True, _praise("contains", schema))
        against = found
    return binary(False, against)


def _complaint(schema: Any, value: Any) -> str | None:
    if schema is None:
        return None
    try:
        return schemas.complaint(schema, value)
    except schemas.SchemaError as error:
        raise AlwaysFails(f"Invalid JSON schema: {error}") from None


def _praise(verb: str, schema: Any) -> str:
    return f"{verb} JSON" if schema is None else f"{verb} JSON of the schema"
