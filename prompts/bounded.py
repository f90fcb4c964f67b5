"""The filters, tests and methods that templates may use, each paid for before it does its work."""

import html
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from functools import partial, wraps
from typing import Any, cast
from uuid import UUID

from jinja2 import Environment, Undefined, pass_environment
from jinja2.filters import FILTERS, do_batch, do_indent, do_round, do_sum, make_attrgetter
from jinja2.tests import TESTS

from prompts.metering import BoundExceededError, meter

MAX_BITS = 4_096  # of an integer that is calculated with
MAX_RANGE = 10_000
MAX_STRIP_CHARS = 100
MAX_INDENT = 100
MAX_JSON_INDENT = 8
MAX_PRECISION = 50
MAX_FORMAT_CHARS = 1_000

_PLAIN_FILTERS = (
    "abs capitalize dictsort float groupby int items list lower map max min reject rejectattr reverse "
    "select selectattr sort title truncate unique upper urlencode wordcount"
)
_INSTANT_FILTERS = "count d default first last length"
_COMPARING_TESTS = "eq equalto == ne != gt greaterthan > ge >= lt lessthan < le <= in lower upper"
_TEXT_METHODS = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower "
    "isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace "
    "rstrip split splitlines startswith strip swapcase title upper"
)
METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}


def to_text(value: Any) -> str:
    """What `{{ value }}` prints: lists and dictionaries as JSON, everything else as Python does."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if value is None or isinstance(value, int | float | Decimal | date | time | UUID | Undefined):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed")


def paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, paying for its operands and its result."""

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        running = meter()
        for operand in (*args, *kwargs.values()):
            running.weigh(operand)
        return running.weigh(function(*args, **kwargs))

    return paying


def bounded_range(*bounds: int) -> range:
    """A range of at most MAX_RANGE numbers."""
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise BoundExceededError(f"range() gives at most {MAX_RANGE} numbers.")
    return numbers


def loop(items: Iterable[Any], static_chars: int) -> Iterator[Any]:
    """The items of a `for`, paying for each turn and the text in its body."""
    running = meter()
    for item in items:
        running.spend(static_chars + 50)
        yield item


def concatenated(values: list[Any]) -> str:
    """The operator `~`."""
    running = meter()
    texts = [to_text(running.weigh(value)) for value in values]
    running.build(sum(map(len, texts)))
    return "".join(texts)


def operate(sign: str, function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """An arithmetic operator."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _calculated(sign, function, left, right)
    if sign == "*":
        return _repeated(left, right)
    if sign == "%" and isinstance(left, str):
        return formatted(left, *(right if isinstance(right, tuple) else (right,)))
    running = meter()
    size = running.weight(left) + running.weight(right)
    if isinstance(left, str):
        running.build(size)
    return function(left, right)


def _calculated(sign: str, function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    for number in (left, right):
        if isinstance(number, int) and number.bit_length() > MAX_BITS:
            raise BoundExceededError(f"Numbers are limited to {MAX_BITS} bits.")
    if sign == "**" and isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), 1) * abs(right)
        if bits > MAX_BITS:
            raise BoundExceededError(f"Numbers are limited to {MAX_BITS} bits.")
    return function(left, right)


def _repeated(left: Any, right: Any) -> Any:
    items, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(items, str | list | tuple) or not isinstance(times, int):
        raise TypeError("* needs numbers, or a text or list and a number")
    running = meter()
    size = running.weight(items) * max(0, times)
    if isinstance(items, str):
        running.build(len(items) * max(0, times))
    running.spend(size)
    return items * times


def formatted(template: str, *values: Any) -> str:
    """printf-style formatting of single values; widths up to 99, no `*`, no names."""
    if len(template) > MAX_FORMAT_CHARS or "*" in template or re.search(r"\d{3}", template):
        raise BoundExceededError("The format is too long, or asks for a width over 99.")
    if not all(value is None or isinstance(value, str | int | float | Decimal) for value in values):
        raise TypeError("only texts and numbers can be formatted")
    meter().build(100 * len(template) + sum(meter().weight(value) for value in values))
    return template % values


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = (to_text(meter().weigh(value)) for value in (text, old, new))
    found = text.count(old)
    times = found if count is None or count < 0 else min(count, found)
    meter().build(len(text) + times * max(0, len(new) - len(old)))
    return str(text.replace(old, new, times))


@pass_environment
def _join(environment: Environment | None, items: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        items = map(make_attrgetter(cast("Environment", environment), attribute), items)
    texts, separator = [to_text(meter().weigh(item)) for item in items], to_text(d)
    meter().build(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


def _strip(method: Callable[..., str], text: Any, chars: str | None = None) -> str:
    if chars is not None and len(chars) > MAX_STRIP_CHARS:
        raise BoundExceededError(f"At most {MAX_STRIP_CHARS} different characters can be trimmed.")
    return method(to_text(meter().weigh(text)), chars)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = to_text(meter().weigh(text))
    step = width if isinstance(width, int) else len(width)
    if step > MAX_INDENT:
        raise BoundExceededError(f"Texts are indented by at most {MAX_INDENT} characters.")
    meter().build(len(text) + (text.count("\n") + 1) * step)
    return do_indent(text, width, first, blank)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    _check_number(value)
    if abs(precision) > MAX_PRECISION:
        raise BoundExceededError(f"Numbers are rounded to at most {MAX_PRECISION} digits.")
    return do_round(value, precision, method)


@pass_environment
def _sum(environment: Environment, items: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:
    _check_number(start)
    return do_sum(environment, meter().weigh(items), attribute, start)


def _is_divisible(value: float, number: float = 2) -> bool:
    # Of a text, % would be a format.
    _check_number(value)
    _check_number(number)
    return operate("%", operator.mod, value, number) == 0


def _check_number(value: Any) -> None:
    if not isinstance(value, int | float):
        raise TypeError("only numbers can be calculated with")


def _batch(items: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterator[list[Any]]:
    if not 0 < linecount <= MAX_RANGE:
        raise BoundExceededError(f"A batch has 1 to {MAX_RANGE} items.")
    return do_batch(meter().weigh(items), linecount, fill_with)


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as it is: no HTML escapes, which a model would have to read."""
    meter().weigh(value)
    width = None if indent is None else max(0, min(indent, MAX_JSON_INDENT))
    pieces = []
    for piece in json.JSONEncoder(ensure_ascii=False, indent=width, default=str).iterencode(value):
        meter().spend(len(piece))
        pieces.append(piece)
    meter().build(sum(map(len, pieces)))
    return "".join(pieces)


def _escape(value: Any) -> str:
    return html.escape(to_text(meter().weigh(value)))


def _string(value: Any) -> str:
    return to_text(meter().weigh(value))


FILTER_TABLE: dict[str, Callable[..., Any]] = {
    **{name: FILTERS[name] for name in _INSTANT_FILTERS.split()},
    **{name: paid(FILTERS[name]) for name in _PLAIN_FILTERS.split()},
    "batch": _batch,
    "e": _escape,
    "escape": _escape,
    "format": formatted,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "string": _string,
    "sum": _sum,
    "tojson": _tojson,
    "trim": partial(_strip, str.strip),
}
_JINJA_TESTS: dict[str, Any] = dict(TESTS)
TEST_TABLE: dict[str, Callable[..., Any]] = {
    **_JINJA_TESTS,
    **{name: paid(_JINJA_TESTS[name]) for name in _COMPARING_TESTS.split()},
    "divisibleby": _is_divisible,
    "even": _is_divisible,
    "odd": lambda value: not _is_divisible(value),
}
_METHODS_THAT_GROW: dict[str, Callable[..., Any]] = {
    "join": lambda separator, items: _join(None, items, separator),
    "lstrip": partial(_strip, str.lstrip),
    "replace": _replace,
    "rstrip": partial(_strip, str.rstrip),
    "strip": partial(_strip, str.strip),
}


def bounded_method(function: Any) -> Any:
    """A method of a value, in its bounded form; other functions as they are, paying."""
    owner = getattr(function, "__self__", None)
    meter().weigh(owner)
    if isinstance(owner, str) and function.__name__ in _METHODS_THAT_GROW:
        return partial(_METHODS_THAT_GROW[function.__name__], owner)
    return function
