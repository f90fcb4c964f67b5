"""JSON Schema without surprises: nothing is fetched, and every pattern is bounded in time.

promptfoo validates with ajv: draft 7 unless `$schema` names another, patterns are JavaScript's, and
formats are asserted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import jsonschema
import msgspec
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from autoforge.lru import Lru
from evaluations.scorers.patterns import PatternError, compile_pattern, is_match

_MAX_COMPLAINT_CHARS = 200
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")

_formats = jsonschema.FormatChecker(["email", "ipv4", "ipv6", "uuid"])


class SchemaError(ValueError):
    """A JSON Schema that cannot be used."""


def complaint(schema: Any, value: Any) -> str | None:
    """What first speaks against `value`, None when it conforms. Raises SchemaError."""
    validator = _validator(msgspec.json.encode(schema))
    try:
        error = next(validator.iter_errors(value), None)
    except Unresolvable as unresolvable:
        raise SchemaError(f"{unresolvable.ref} cannot be resolved, and nothing is fetched") from None
    return None if error is None else f"{error.json_path}: {error.message}"[:_MAX_COMPLAINT_CHARS]


def check_schema(schema: Any) -> None:
    """Raises SchemaError when `schema` is none."""
    _validator(msgspec.json.encode(schema))


def _new_validator(encoded: bytes) -> Any:
    schema = msgspec.json.decode(encoded)
    if not isinstance(schema, bool | dict):
        raise SchemaError("it must be an object, true or false")
    if isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str):
        raise SchemaError("$schema must be a text")
    kind = validator_for(schema, default=jsonschema.Draft7Validator)
    try:
        # Without formats: `regex` among them would be Python's, and ours are checked below.
        kind.check_schema(schema, format_checker=jsonschema.FormatChecker(()))
    except jsonschema.SchemaError as error:
        raise SchemaError(f"{error.json_path}: {error.message}"[:_MAX_COMPLAINT_CHARS]) from None
    _check_keywords(schema)
    return _bounded(kind)(schema, registry=REGISTRY, format_checker=_formats)


# A validator takes some ten times the bytes of its schema.
_validator: Lru[bytes, Any] = Lru(
    "JSON schemas", _new_validator, max_entries=64, max_bytes=32 * 1_048_576, growth=10
)


@lru_cache(maxsize=8)
def _bounded(kind: Any) -> Any:
    """The validator of a draft with its own searches replaced by bounded ones."""
    return extend(
        kind,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    )


def _check_keywords(schema: Any) -> None:
    members = list(_members(schema))
    for key, value in members:
        if key == "pattern" and isinstance(value, str):
            _check_pattern(value)
        if key == "patternProperties":
            for pattern in value:
                _check_pattern(pattern)
    # The library searches for these property names with patterns of its own, unbounded.
    if {"unevaluatedProperties", "patternProperties"} <= {key for key, _ in members}:
        raise SchemaError("unevaluatedProperties beside patternProperties is not supported")


def _check_pattern(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise SchemaError(f"{pattern!r} is no usable pattern: {error}") from None


def _members(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of every object inside `schema`."""
    if isinstance(schema, dict):
        yield from schema.items()
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for value in inner:
        yield from _members(value)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not is_match(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name in filter(lambda name: is_match(pattern, name), instance):
            yield from validator.descend(instance[name], subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for name in instance:
        known = name in schema.get("properties", {})
        if known or any(is_match(pattern, name) for pattern in schema.get("patternProperties", {})):
            continue
        if allowed is False:
            yield jsonschema.ValidationError(f"the property {name!r} is not allowed")
        elif isinstance(allowed, dict):
            yield from validator.descend(instance[name], allowed, path=name)


@_formats.checks("date", raises=ValueError)
def _is_date(text: object) -> bool:
    return not isinstance(text, str) or (len(text) == 10 and bool(date.fromisoformat(text)))


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(text: object) -> bool:
    """RFC 3339, 5.6."""
    return not isinstance(text, str) or bool(
        _DATE_TIME.fullmatch(text) and datetime.fromisoformat(text.upper())
    )


@_formats.checks("uri")
def _is_uri(text: object) -> bool:
    """RFC 3986, 3: a scheme, a colon, and characters a URI may have."""
    return not isinstance(text, str) or _URI.fullmatch(text) is not None
