"""Text scorers against promptfoo's rules, each also in its `not-` form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluations.scorers import Output, ScorerError, ScorerSpec, assess, parse_scorers
from evaluations.scorers.text import split_list
from tests.evaluations.scorers.verdicts import judged, verdict


@pytest.mark.parametrize(
    ("value", "output", "passes"),
    [
        ("Paris", "Paris", True),
        ("Paris", "paris", False),
        ("Paris", "Paris ", False),
        ("", "", True),
        (1, "1", True),
        (1.0, "1", True),
        (0.1, "0.1", True),
        (1e21, "1e+21", True),
        (1e-7, "1e-7", True),
        (10**400, "Infinity", True),
        (123456789012345680000, "123456789012345680000", True),
        (True, "true", True),
        (True, "True", False),
        (False, "false", True),
        (None, " null ", True),
        (None, "", False),
        ({"a": 1, "b": [1, 2]}, '{"b": [1, 2.0], "a": 1}', True),
        ({"a": 1}, '{"a": true}', False),
        ({"a": 1}, '{"a": "1"}', False),
        ([1, 2], "[2, 1]", False),
        ([], "[]", True),
        ({"a": 1}, "no JSON", False),
        ({"a": None}, '{"a": NaN}', False),
    ],
)
def test_equals_compares_as_javascript_does(value, output, passes):
    assert verdict("equals", value, output) is passes


@pytest.mark.parametrize(
    ("type_", "value", "output", "passes"),
    [
        ("contains", "or", "more", True),
        ("contains", "OR", "more", False),
        ("contains", 4, "about 42", True),
        ("contains", 4.0, "about 42", True),
        ("icontains", "OR", "more", True),
        ("icontains", "ÉCOLE", "une école", True),
        ("starts-with", "mo", "more", True),
        ("starts-with", "re", "more", False),
        ("contains-any", ["x", "r"], "more", True),
        ("contains-any", ["x", "y"], "more", False),
        ("contains-any", "x, r", "more", True),
        ("contains-any", '"a, b", c', "a b", False),
        ("contains-any", '"a, b", c', "say a, b", True),
        ("contains-any", [1, True], "it is true", True),
        ("contains-all", "m, r", "more", True),
        ("contains-all", ["m", "R"], "more", False),
        ("icontains-any", "X, R", "more", True),
        ("icontains-all", "M,R", "more", True),
        ("icontains-all", "M,X", "more", False),
    ],
)
def test_substrings(type_, value, output, passes):
    assert verdict(type_, value, output) is passes


@pytest.mark.parametrize(
    ("listed", "fields"),
    [
        ("a,b", ["a", "b"]),
        (" a , b c ,", ["a", "b c"]),
        (",,a,,", ["a"]),
        ('"a, b",c', ["a, b", "c"]),
        ('"say ""hi""", x', ['say "hi"', "x"]),
        (r'"a \"b\" \\ c"', [r'a "b" \ c']),
        ('""', [""]),
        ('a "b" c', ['a "b" c']),
        ("a\nb,c", ["a\nb", "c"]),
        ("", []),
    ],
)
def test_a_list_may_be_a_line_of_csv(listed, fields):
    assert split_list(listed) == fields


@pytest.mark.parametrize("listed", ['"a', '"a" b, c', 'x, "', '"' + "\\" * 5_001])
def test_a_misplaced_quote_is_refused_at_once(listed):
    with pytest.raises(ScorerError, match="quote"):
        split_list(listed)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_every_quoted_list_reads_back(items):
    assert (
        split_list(",".join('"' + item.replace("\\", "\\\\").replace('"', '""') + '"' for item in items))
        == items
    )


@pytest.mark.parametrize(
    ("value", "output", "passes"),
    [
        (3, "one two  three\n", True),
        (0, " \t", True),
        ("2", "one two", True),
        (2, "non\u00a0breaking", True),
        ({"min": 2}, "one", False),
        ({"min": 2}, "one two", True),
        ({"max": 2}, "one two three", False),
        ({"min": 1, "max": 2}, "one two", True),
        ({"min": 1, "max": 2}, "", False),
    ],
)
def test_word_count(value, output, passes):
    assert verdict("word-count", value, output) is passes


@pytest.mark.parametrize(
    ("type_", "value", "field_says"),
    [
        ("contains", "", "not empty"),
        ("contains", True, "must be a text"),
        ("starts-with", 3, "must be a text"),
        ("contains-any", [], "must be a list"),
        ("contains-all", {"a": 1}, "must be a list"),
        ("word-count", "many", "must be a number"),
        ("word-count", True, "must be a number"),
        ("word-count", {"min": 3, "max": 2}, "min of 3 above its max of 2"),
        ("word-count", {"least": 3}, "must be a number"),
        ("word-count", {}, "must be a number"),
        ("regex", "(", "invalid regex pattern"),
        ("not-regex", "a**", "nothing to repeat"),
    ],
)
def test_a_value_that_cannot_work_is_refused_when_the_run_starts(type_, value, field_says):
    with pytest.raises(ScorerError, match=field_says) as refused:
        parse_scorers([{"type": type_, "value": value}])
    assert refused.value.field == "value"


@pytest.mark.parametrize(("type_", "value"), [("contains", ""), ("contains-any", []), ("word-count", "x")])
def test_a_value_that_a_template_made_unusable_is_an_error(type_, value):
    (row,) = assess([ScorerSpec(type_, value)], Output("text")).scores
    assert row.error and row.passed is None


@pytest.mark.parametrize("type_", ["regex", "not-regex"])
def test_a_bad_pattern_from_a_template_fails_both_forms(type_):
    (row,) = assess([ScorerSpec(type_, "(")], Output("text")).scores
    assert (row.passed, row.value, row.error) == (False, 0.0, None)
    assert row.reason.startswith("Invalid regex pattern: ")


def test_a_regex_searches_anywhere():
    assert verdict("regex", r"\d{3}", "call 911 now") is True
    assert verdict("regex", r"^\d{3}$", "call 911 now") is False


@pytest.mark.parametrize("type_", ["regex", "not-regex"])
def test_a_catastrophic_pattern_is_an_error_in_bounded_time(type_):
    row = judged(type_, "(a|aa)+$", "a" * 100 + "b")
    assert row.passed is None
    assert "took more than" in (row.error or "")


def test_a_reason_says_what_is_the_case():
    assert judged("equals", "yes", "no").reason == 'does not equal "yes", it is "no"'
    assert judged("not-contains", "yes", "no").reason == 'does not contain "yes"'
    assert judged("contains-all", "a, b, c", "b").reason == 'does not contain ["a", "c"]'
    assert len(judged("equals", "x" * 5_000, "y" * 5_000).reason) < 300
