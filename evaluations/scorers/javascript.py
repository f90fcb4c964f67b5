"""The few rules of JavaScript that decide a promptfoo assertion: how a value prints, what is white space."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

# What \s and trim() take: WhiteSpace and LineTerminator of ECMA-262, 12.2 and 12.3; for a regex class.
SPACES = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
LINE_ENDS = r"\n\r\u2028\u2029"


def js_string(value: Any) -> str:
    """`String(value)` of a JSON value (ECMA-262, 7.1.17)."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(_double(value))
    if isinstance(value, list):
        return ",".join("" if item is None else js_string(item) for item in value)
    return "[object Object]"


def same_json(left: Any, right: Any) -> bool:
    """Deep equality of two JSON values: key order is free, 1 equals 1.0 but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _number(value: float) -> str:
    """Shortest digits that read back as `value`, in Number::toString's layout (ECMA-262, 6.1.6.1.20)."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    minus = "-" if sign and value else ""
    return minus + _laid_out(text, len(text) + int(exponent))


def _laid_out(digits: str, point: int) -> str:
    """`digits` with the decimal point after `point` of them, scientific outside 1e-7 … 1e21."""
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{point - 1:+d}"
