"""JavaScript regular expressions with a bound on time and memory, so that no pattern stalls the event loop.

A pattern is translated, token by token, into the dialect of the `regex` package, whose matcher takes
a timeout. Translation also bounds what that timeout does not: the pattern's length and how often it
repeats itself by count. Differences from ECMA-262 that remain: a match sees code points, never halves
of a surrogate pair; leading flags like `(?i)`, `\\p{…}` and `\\u{…}` are understood.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import regex

from autoforge.trimming import can_trim
from evaluations.scorers.javascript import LINE_ENDS, SPACES
from evaluations.scorers.types import UnjudgeableError

MAX_PATTERN_CHARS = 2_000
MAX_UNROLLED = 5_000
MAX_TEXT_CHARS = 524_288
TIMEOUT_S = 0.05

# Matches everywhere. It keeps runs of literals short: the matcher's tables for a long, repetitive
# run take seconds to build, and no timeout covers that.
_BARRIER, _BARRIER_EVERY = "(?!(?!))", 64
_LOOKBEHINDS = ("(?<=", "(?<!")
ANYTHING, NOTHING = "(?s:.)", "(?!)"

_CHARACTER = r"c[A-Za-z]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}"
_PROPERTY = r"[pP]\{[\w=]+\}"
_TOKEN = re.compile(
    rf"""\\(?P<escape>{_CHARACTER}|{_PROPERTY}|k<\w+>|[0-9]+|.)
    |\[(?P<set>\^?(?:\\.|[^\]\\])*)\]
    |(?P<open>\((?:\?(?:<?[=!]|[:]|i:|P?<[^\W\d]\w*>))?)
    |(?P<close>\))
    |(?P<quantifier>(?:[*+?]|\{{\d+(?:,\d*)?\}})\??)
    |(?P<mark>[.^$|])
    |(?P<literal>.)""",
    re.DOTALL | re.VERBOSE,
)
_SET_ITEM = re.compile(rf"\\(?P<escape>{_CHARACTER}|{_PROPERTY}|.)|(?P<literal>.)", re.DOTALL)
_FLAGS = re.compile(r"\(\?([ims]+)\)")
_CAPTURES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|(?P<group>\((?!\?)|\(\?P?<(?P<name>\w+)>)", re.DOTALL)


class PatternError(ValueError):
    """A pattern that is no regular expression, or one too large to be used safely."""


class PatternTimeoutError(UnjudgeableError):
    """A search that was given up."""


def is_match(pattern: str, text: str) -> bool:
    """`new RegExp(pattern).test(text)`: a search. Raises PatternError, PatternTimeoutError."""
    compiled = compile_pattern(pattern)
    if len(text) > MAX_TEXT_CHARS:
        raise PatternTimeoutError(f"the text is longer than {MAX_TEXT_CHARS} characters")
    try:
        return compiled.search(text, timeout=TIMEOUT_S) is not None
    except TimeoutError:
        raise PatternTimeoutError(
            f"the pattern took more than {TIMEOUT_S * 1000:g} ms; avoid repeats inside repeats, like (a|b*)*"
        ) from None


@lru_cache(maxsize=64)  # of at most about 1 MiB each, by MAX_UNROLLED
def compile_pattern(pattern: str) -> Any:
    """The compiled pattern. Raises PatternError with what is wrong."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise PatternError(f"longer than {MAX_PATTERN_CHARS} characters")
    leading = _FLAGS.match(pattern)
    letters = leading.group(1) if leading else ""
    source = _Translation(pattern[leading.end() if leading else 0 :], letters).text()
    try:
        return regex.compile(source, _flags(pattern, letters), cache_pattern=False)
    except RecursionError:
        raise PatternError("nested too deeply") from None
    except (regex.error, OverflowError, ValueError) as error:
        raise PatternError(getattr(error, "msg", str(error))) from None


can_trim("patterns", compile_pattern.cache_clear)


def _flags(pattern: str, letters: str) -> int:
    # \w, \d and \b are ASCII as in JavaScript, unless case or a property must work in every script.
    is_worldwide = "i" in letters or "\\p{" in pattern or "\\P{" in pattern
    flags = regex.UNICODE if is_worldwide else regex.ASCII
    flags |= regex.IGNORECASE if "i" in letters else 0
    return int(flags | regex.MULTILINE if "m" in letters else flags)


class _Translation:
    """One pass over a pattern; `_unrolled` holds, per open group, how many nodes it compiles to."""

    def __init__(self, pattern: str, letters: str) -> None:
        self._pattern = pattern
        self._marks = {
            ".": ANYTHING if "s" in letters else f"[^{LINE_ENDS}]",
            "$": "$" if "m" in letters else r"\Z",
        }
        found = [match for match in _CAPTURES.finditer(pattern) if match.group("group")]
        self._groups = [match.group("name") for match in found]
        self._opened = self._atoms = 0
        self._openings: list[tuple[str, int]] = []
        self._closed: set[int] = set()
        self._unrolled = [0]
        self._atom = 0  # nodes of what a quantifier would repeat; 0: nothing

    def text(self) -> str:
        parts = [
            getattr(self, f"_{found.lastgroup}")(found.group(found.lastgroup or 0))
            for found in _TOKEN.finditer(self._pattern)
        ]
        if len(self._unrolled) > 1:
            raise PatternError("unterminated group")
        return "".join(parts)

    def _grow(self, nodes: int) -> None:
        self._unrolled[-1] += nodes
        if self._unrolled[-1] > MAX_UNROLLED:
            raise PatternError(f"repeats itself by count more than {MAX_UNROLLED} times")

    def _atom_of(self, text: str) -> str:
        self._atom = 1
        self._grow(1)
        self._atoms += 1
        return text if self._atoms % _BARRIER_EVERY else _BARRIER + text

    def _literal(self, char: str) -> str:
        if char in "[\\":
            raise PatternError("unterminated character class" if char == "[" else r"\ at end of pattern")
        return self._atom_of(regex.escape(char))

    def _mark(self, mark: str) -> str:
        if mark == ".":
            return self._atom_of(self._marks["."])
        self._atom = 0
        return self._marks.get(mark, mark)

    def _open(self, opening: str) -> str:
        is_capture = opening == "(" or opening.endswith(">")
        self._opened += is_capture
        self._openings.append((opening, self._opened if is_capture else 0))
        self._unrolled.append(0)
        self._atom = 0
        return opening.replace("(?<", "(?P<") if opening.endswith(">") else opening

    def _close(self, closing: str) -> str:
        if len(self._unrolled) == 1:
            raise PatternError("unmatched ')'")
        opening, number = self._openings.pop()
        self._closed.add(number)
        nodes = self._unrolled.pop() + 1
        self._grow(nodes)
        self._atom = 0 if opening in _LOOKBEHINDS else nodes
        return closing

    def _quantifier(self, quantifier: str) -> str:
        if not self._atom:
            raise PatternError("nothing to repeat")
        least = re.match(r"\{(\d{1,9})", quantifier)
        self._grow(self._atom * (max(1, int(least.group(1))) - 1 if least else 0))
        self._atom = 0
        return quantifier

    def _escape(self, escape: str) -> str:
        if escape in "bB":
            self._atom = 0
            return f"\\{escape}"
        if escape[0] in "0123456789":
            return self._atom_of(self._reference(escape))
        if escape.startswith("k<"):
            return self._atom_of(self._named_reference(escape[2:-1]))
        if escape in "sS":
            return self._atom_of(f"[{'^' if escape == 'S' else ''}{SPACES}]")
        return self._atom_of(_class_or_character(escape))

    def _reference(self, digits: str) -> str:
        """A group that has no match yet is the empty text; a number without a group is a character code."""
        number = int(digits[:9])
        if 0 < number <= len(self._groups):
            return f"(?({number})\\{number}|)" if number in self._closed else "(?:)"
        octal = re.match(r"[0-3]?[0-7]{1,2}|", digits)
        code = octal.group() if octal else ""
        return regex.escape((chr(int(code, 8)) if code else "") + digits[len(code) :])

    def _named_reference(self, name: str) -> str:
        if not any(self._groups):
            return regex.escape(f"k<{name}>")
        if name not in self._groups:
            raise PatternError(f'no group is named "{name}"')
        return self._reference(str(self._groups.index(name) + 1))

    def _set(self, inner: str) -> str:
        is_negated = inner.startswith("^")
        body, has_non_space = _set_body(inner.removeprefix("^"))
        return self._atom_of(_set_text(body, is_negated, has_non_space))


def _class_or_character(escape: str) -> str:
    """An escape that means the same inside and outside a set."""
    if escape[0] in "dDwWnrtvf" or (escape[0] in "pP" and len(escape) > 1):
        return f"\\{escape}"
    if len(escape) > 1 and escape[0] in "xu":
        return regex.escape(chr(int(escape[1:].strip("{}"), 16)))
    if len(escape) > 1:
        return regex.escape(chr(ord(escape[1]) & 31))
    return regex.escape("\0" if escape == "0" else escape)


def _set_body(inner: str) -> tuple[str, bool]:
    """A set's items, and whether \\S is among them, which cannot be written inside a set."""
    items = list(_SET_ITEM.finditer(inner))
    parts: list[str] = []
    has_non_space = is_range_end = False
    for index, item in enumerate(items):
        if item.group() == "-":
            is_range = 0 < index < len(items) - 1 and not is_range_end
            is_range = is_range and not any(map(_is_class, items[index - 1 : index + 2 : 2]))
            parts.append("-" if is_range else r"\-")
            is_range_end = is_range
            continue
        has_non_space = has_non_space or item.group() == r"\S"
        parts.append(_set_item(item))
    return "".join(parts), has_non_space


def _is_class(item: re.Match[str]) -> bool:
    escape = item.group("escape")
    return escape is not None and (escape in "dDwWsS" or escape[0] in "pP")


def _set_item(item: re.Match[str]) -> str:
    escape = item.group("escape")
    if escape is None or escape == "-":
        return f"\\{item.group()[-1]}" if item.group()[-1] in r"\]^[-&~|" else item.group()
    special = {"s": SPACES, "S": "", "b": r"\x08"}
    return special[escape] if escape in special else _class_or_character(escape)


def _set_text(body: str, is_negated: bool, has_non_space: bool) -> str:
    if has_non_space and SPACES in body:
        return NOTHING if is_negated else ANYTHING
    if has_non_space:
        others = f"[{body}]" if body else NOTHING
        return f"(?:(?!{others})[{SPACES}])" if is_negated else f"(?:{others}|[^{SPACES}])"
    if not body:
        return ANYTHING if is_negated else NOTHING
    return f"[{'^' if is_negated else ''}{body}]"
