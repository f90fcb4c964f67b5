"""Patterns mean what they mean in JavaScript, and no pattern takes the process with it."""

import re
import shutil
import subprocess

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.scorers.patterns import (
    MAX_PATTERN_CHARS,
    MAX_TEXT_CHARS,
    PatternError,
    PatternTimeoutError,
    compile_pattern,
    is_match,
)

# What JavaScript answers, by ECMA-262 and Annex B; Python's `re` differs in each.
JAVASCRIPT = [
    ("a$", "a\n", False),
    ("^.$", "\u2028", False),
    ("^.$", "\x85", True),
    (r"^\d$", "٣", False),
    (r"^\w$", "é", False),
    (r"\bé", "é", False),
    (r"^\s$", "\ufeff", True),
    (r"^\s$", "\x1c", False),
    (r"^[\s]$", "\u00a0", True),
    (r"^[^\S\n]$", "\u00a0", True),
    (r"^[^\S\n]$", "\n", False),
    (r"^[\S]$", "\u00a0", False),
    (r"^[a\S]$", "é", True),
    (r"^[\s\S]$", "\n", True),
    (r"[^\s\S]", "x", False),
    ("[]", "a", False),
    ("[^]", "\n", True),
    ("^[&&a]$", "&", True),
    ("^[[a]$", "[", True),
    (r"^[\w-.]$", "-", True),
    ("^[a-c-e]$", "d", False),
    (r"^[\b]$", "\x08", True),
    ("^{e}$", "{e}", True),
    ("a{,2}", "a{,2}", True),
    ("(a){e<=1}", "b", False),
    (r"^(?:(a)|b)\1$", "b", True),
    (r"^\1(a)$", "a", True),
    (r"^(?<n>a)\k<n>$", "aa", True),
    (r"^\k<n>$", "k<n>", True),
    (r"^\k<n>(?<n>a)$", "a", True),
    (r"^\cJ$", "\n", True),
    (r"^\x41\u0042$", "AB", True),
    (r"^\0$", "\0", True),
    (r"^\101$", "A", True),
    (r"^\8$", "8", True),
    (r"^\z\/$", "z/", True),
    (r"^(?=a)*b$", "b", True),
    ("^]}$", "]}", True),
]


@pytest.mark.parametrize(("pattern", "text", "found"), JAVASCRIPT)
def test_a_pattern_means_what_javascript_means(pattern, text, found):
    assert is_match(pattern, text) is found


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not on this machine")
def test_a_javascript_engine_agrees():
    script = (
        "const cases = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(cases.map(([pattern, text]) => new RegExp(pattern).test(text))))"
    )
    asked = msgspec.json.encode([(pattern, text) for pattern, text, _ in JAVASCRIPT])
    answered = subprocess.run(
        ["node", "-e", script], input=asked, capture_output=True, check=True, timeout=30
    )
    assert msgspec.json.decode(answered.stdout) == [found for _, _, found in JAVASCRIPT]


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[a",
        "a\\",
        "*",
        "a**",
        "a*+",
        "(?R)",
        "(?>a)",
        "(?#x)",
        "(?<!a)*",
        "[z-a]",
        "a{3,1}",
        r"(?<n>)\k<m>",
    ],
)
def test_what_javascript_refuses_is_refused(pattern):
    with pytest.raises(PatternError):
        compile_pattern(pattern)


def test_leading_flags_are_understood():
    assert is_match("(?i)ÉCOLE", "l'école")
    assert is_match("(?s)a.b", "a\nb")
    assert is_match("(?im)^B$", "a\nb\nc")


@pytest.mark.parametrize("pattern", ["((a{1000}){1000}){1000}", "(?:" * 600 + "a" + ")" * 600, "a" * 5_000])
def test_a_pattern_that_would_fill_the_memory_is_refused(pattern):
    with pytest.raises(PatternError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a|aa)+$", r"\w*\d", "(?=.*(.*)*c)x", "(a?){40}a{40}b"])
def test_a_search_that_takes_long_is_given_up(pattern):
    with pytest.raises(PatternTimeoutError, match="took more than"):
        is_match(pattern, "ax" * 20 + "a" * 60_000 + "!")


def test_a_long_repetitive_literal_costs_nothing():
    assert not is_match("b" + "a" * (MAX_PATTERN_CHARS - 1), "a" * 50_000)
    assert is_match("ab" * (MAX_PATTERN_CHARS // 2), "ab" * 5_000)


def test_a_text_over_the_limit_is_given_up():
    with pytest.raises(PatternTimeoutError, match="longer than"):
        is_match("a", "b" * (MAX_TEXT_CHARS + 1))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_an_escaped_text_finds_itself(needle, around):
    assert is_match(re.escape(needle), around + needle)


@settings(max_examples=200, deadline=None)
@given(st.text("abc01()[]{}|^$.*+?\\-,:=!<>kxuns", max_size=12), st.text("abc01 \n", max_size=12))
def test_any_text_is_a_pattern_or_refused(pattern, text):
    try:
        assert is_match(pattern, text) in (True, False)
    except (PatternError, PatternTimeoutError) as error:
        assert str(error)
