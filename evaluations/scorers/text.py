"""Scorers that look at the characters of an output: equality, substrings, patterns, word counts."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from evaluations.scorers.javascript import SPACES, js_string, same_json
from evaluations.scorers.json_text import load_json
from evaluations.scorers.patterns import PatternError, compile_pattern, is_match
from evaluations.scorers.registry import binary, scorer, shown
from evaluations.scorers.types import AlwaysFails, Output, Score, ScorerError, ScorerSpec

_WORD = re.compile(f"[^{SPACES}]+")
# One field of a comma-separated list: quoted with "" or backslash escapes, or bare.
_FIELD = re.compile(
    r'\s*(?:"(?P<quoted>(?:\\["\\]|""|[^"])*+)"\s*|(?P<bare>[^",\s][^,]*))?(?:,|\Z)', re.DOTALL
)
_QUOTE_ESCAPE = re.compile(r'\\(["\\])|"(")')

_EQUALS = ("equals", "does not equal")
_CONTAINS = ("contains", "does not contain")
_STARTS = ("starts with", "does not start with")
_MATCHES = ("matches", "does not match")

Bounds = tuple[float, float]


def anything(spec: ScorerSpec) -> Any:
    """Any JSON value."""
    return spec.value


def text(spec: ScorerSpec) -> str:
    """A text that is not empty."""
    if not isinstance(spec.value, str) or not spec.value:
        raise ScorerError("value", f"must be a text that is not empty, not {shown(spec.value)}.")
    return spec.value


def text_or_number(spec: ScorerSpec) -> str:
    """A text that is not empty, or a number as JavaScript prints it."""
    is_number = isinstance(spec.value, int | float) and not isinstance(spec.value, bool)
    if is_number and spec.value == spec.value:  # not NaN; math.isnan takes no huge int
        return js_string(spec.value)
    return text(spec)


def texts(spec: ScorerSpec) -> list[str]:
    """A list that is not empty, or a comma-separated text of one, its fields quoted as in CSV."""
    found = split_list(spec.value) if isinstance(spec.value, str) else spec.value
    if not isinstance(found, list) or not found:
        raise ScorerError(
            "value", f'must be a list like ["a", "b"] or a text like "a, b", not {shown(spec.value)}.'
        )
    return [js_string(item) for item in found]


def split_list(listed: str) -> list[str]:
    """The fields of a comma-separated text: trimmed, empty ones left out, `"a, b"` kept together."""
    fields, position = [], 0
    while position < len(listed):
        found = _FIELD.match(listed, position)
        if found is None:
            raise ScorerError("value", f"has a quote that does not enclose a whole field: {shown(listed)}.")
        position = found.end()
        if found["quoted"] is not None:
            fields.append(_QUOTE_ESCAPE.sub(r"\1\2", found["quoted"]))
        elif found["bare"]:
            fields.append(found["bare"].strip())
    return fields


def word_bounds(spec: ScorerSpec) -> Bounds:
    """The fewest and the most words: from a number, a text of one, or {"min": …, "max": …}."""
    wanted = spec.value
    if isinstance(wanted, dict) and wanted and wanted.keys() <= {"min", "max"}:
        low, high = _number(wanted.get("min", 0)), _number(wanted.get("max", math.inf))
    else:
        low = high = _number(wanted)
    if low > high:
        raise ScorerError("value", f"has a min of {low:g} above its max of {high:g}.")
    return low, high


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise ScorerError("value", f'must be a number or {{"min": …, "max": …}}, not {shown(value)}.')
    return number


def compilable(pattern: str) -> None:
    """Raises ScorerError when `pattern` is no regular expression of JavaScript."""
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise ScorerError("value", f"is an invalid regex pattern: {error}.") from None


@scorer("equals", reads=anything)
def equals(output: Output, expected: Any, spec: ScorerSpec) -> Score:
    """The output is the text of the value; for an object, list or null, JSON that deep-equals it."""
    if expected is None or isinstance(expected, dict | list):
        wanted = json.dumps(expected, ensure_ascii=False)
        return _stated(_is_same_json(output.text, expected), _EQUALS, wanted)
    wanted = js_string(expected)
    return _stated(output.text == wanted, _EQUALS, wanted, instead=output.text)


def _is_same_json(output: str, expected: Any) -> bool:
    try:
        return same_json(load_json(output), expected)
    except ValueError:
        return False


@scorer("contains", reads=text_or_number)
def contains(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """The value is somewhere in the output, in the same case."""
    return _stated(expected in output.text, _CONTAINS, expected)


@scorer("icontains", reads=text_or_number)
def icontains(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """The value is somewhere in the output, in any case."""
    return _stated(expected.lower() in output.text.lower(), _CONTAINS, expected)


@scorer("starts-with", reads=text)
def starts_with(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """The output begins with the value."""
    return _stated(output.text.startswith(expected), _STARTS, expected)


@scorer("contains-any", reads=texts)
def contains_any(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """One of the values is in the output."""
    return _any_of(expected, [item for item in expected if item in output.text])


@scorer("icontains-any", reads=texts)
def icontains_any(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """One of the values is in the output, in any case."""
    lowered = output.text.lower()
    return _any_of(expected, [item for item in expected if item.lower() in lowered])


@scorer("contains-all", reads=texts)
def contains_all(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """All of the values are in the output."""
    return _all_of([item for item in expected if item not in output.text])


@scorer("icontains-all", reads=texts)
def icontains_all(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """All of the values are in the output, in any case."""
    lowered = output.text.lower()
    return _all_of([item for item in expected if item.lower() not in lowered])


@scorer("regex", reads=text, checks=compilable)
def matches(output: Output, pattern: str, spec: ScorerSpec) -> Score:
    """JavaScript's `RegExp.test`: the pattern is found anywhere. A bad pattern fails, negated or not."""
    try:
        return _stated(is_match(pattern, output.text), _MATCHES, pattern)
    except PatternError as error:
        raise AlwaysFails(f"Invalid regex pattern: {error}") from None


@scorer("word-count", reads=word_bounds)
def word_count(output: Output, bounds: Bounds, spec: ScorerSpec) -> Score:
    """The number of words, runs of anything but white space, lies within inclusive bounds."""
    low, high = bounds
    count = len(_WORD.findall(output.text))
    allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return binary(low <= count <= high, f"{count} words, wanted {allowed}")


def _stated(is_so: bool, verbs: tuple[str, str], wanted: str, *, instead: str | None = None) -> Score:
    """A verdict that reads the same for the scorer and its `not-` form: it says what is the case."""
    found = "" if is_so or instead is None else f", it is {shown(instead)}"
    return binary(is_so, f"{verbs[0] if is_so else verbs[1]} {shown(wanted)}{found}")


def _any_of(expected: list[str], found: list[str]) -> Score:
    return binary(
        bool(found), f"contains {shown(found[0])}" if found else f"contains none of {shown(expected)}"
    )


def _all_of(missing: list[str]) -> Score:
    return binary(not missing, f"does not contain {shown(missing)}" if missing else "contains all")
